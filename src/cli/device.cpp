#include "cli/device.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/device_module.h"
#include "common/error.h"
#include "common/log.h"

namespace dsmoe {
namespace {

c10::Device open_cuda(int64_t index) {
  open_cuda_module().select(index);
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

// Of Linux, or of Windows under it. Without one the module need not be loaded to know.
bool has_nvidia_driver() {
  return std::filesystem::exists("/dev/nvidiactl") || std::filesystem::exists("/dev/dxg");
}

c10::Device best_device(int64_t index) {
  if (!has_cuda_module()) return c10::kCPU;
  if (!has_nvidia_driver()) {
    log_info("device auto: the CPU, this machine has no NVIDIA driver");
    return c10::kCPU;
  }
  try {
    return open_cuda(index);
  } catch (const Error& error) {
    log_info(fmt::format("device auto: the CPU; {}", error.what()));
    return c10::kCPU;
  }
}

}  // namespace

c10::Device open_device(const std::string& name, int64_t index) {
  if (name == "cpu") return c10::kCPU;
  if (name == "cuda") return open_cuda(index);
  if (name == "auto") return best_device(index);
  throw Error(fmt::format("--device: expected cpu, cuda or auto, got '{}'", name));
}

}  // namespace dsmoe
