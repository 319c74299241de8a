#pragma once

#include <ATen/Context.h>

namespace dsmoe {

/// While it lives, torch fills the memory of new tensors with NaN, so that a kernel that reads what nobody wrote shows it.
struct PoisonedMemory {
  PoisonedMemory() { at::globalContext().setDeterministicAlgorithms(true, false); }
  ~PoisonedMemory() { at::globalContext().setDeterministicAlgorithms(false, false); }
  PoisonedMemory(const PoisonedMemory&) = delete;
  PoisonedMemory& operator=(const PoisonedMemory&) = delete;
};

}  // namespace dsmoe
