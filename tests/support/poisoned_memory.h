#pragma once

#include <ATen/Context.h>

namespace dsmoe {

/// During its lifetime torch fills the memory of new tensors with NaN, which exposes a kernel that
/// reads unwritten memory.
struct PoisonedMemory {
  PoisonedMemory() { at::globalContext().setDeterministicAlgorithms(true, false); }
  ~PoisonedMemory() { at::globalContext().setDeterministicAlgorithms(false, false); }
  PoisonedMemory(const PoisonedMemory&) = delete;
  PoisonedMemory& operator=(const PoisonedMemory&) = delete;
};

}  // namespace dsmoe
