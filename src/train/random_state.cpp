#include "train/random_state.h"

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <mutex>

#include "common/error.h"

namespace dsmoe {

std::string capture_random_state(at::Device device) {
  auto generator = at::globalContext().defaultGenerator(device);
  std::lock_guard lock(generator.mutex());
  const auto state = generator.get_state();  // [size_bytes] uint8
  return {static_cast<const char*>(state.data_ptr()), static_cast<size_t>(state.numel())};
}

void restore_random_state(const std::string& bytes, at::Device device) {
  auto generator = at::globalContext().defaultGenerator(device);
  std::lock_guard lock(generator.mutex());
  const auto expected = static_cast<size_t>(generator.get_state().numel());
  if (bytes.size() != expected) {
    throw Error("random state: expected " + std::to_string(expected) + " bytes, got " +
                std::to_string(bytes.size()));
  }
  auto state = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::memcpy(state.data_ptr(), bytes.data(), bytes.size());
  generator.set_state(state);
}

}  // namespace dsmoe
