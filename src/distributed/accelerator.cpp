#include "distributed/accelerator.h"

#include <fmt/format.h>

#include <optional>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "common/error.h"

namespace dsmoe {
namespace {

std::optional<Accelerator>& registered() {
  static std::optional<Accelerator> accelerator;
  return accelerator;
}

}  // namespace

void register_accelerator(Accelerator accelerator) { registered() = std::move(accelerator); }

const Accelerator& accelerator_of(c10::DeviceType device) {
  if (!registered() || registered()->device != device) {
    throw Error(fmt::format("ranks: no module with collectives for {} tensors was opened",
                            c10::DeviceTypeName(device, /*lower_case=*/true)));
  }
  return *registered();
}

}  // namespace dsmoe
