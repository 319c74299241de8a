#include "common/device_module.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "common/error.h"
#include "common/process_setup.h"

namespace dsmoe {
namespace {

DeviceModule* registered = nullptr;

std::filesystem::path module_path() {
  return std::filesystem::path(program_directory()) / "dsmoe_cuda.so";
}

}  // namespace

void register_device_module(DeviceModule& module) { registered = &module; }

DeviceModule* opened_device_module() { return registered; }

bool has_cuda_module() { return std::filesystem::exists(module_path()); }

DeviceModule& open_cuda_module() {
  if (registered != nullptr) return *registered;
  const auto path = module_path();
  if (!has_cuda_module()) {
    throw Error(
        fmt::format("device cuda: this program was built without CUDA, '{}' is missing; run "
                    "scripts/setup.sh --cuda, cmake --preset cuda and cmake --build --preset cuda",
                    path.string()));
  }
  return open_device_module(path.string());
}

DeviceModule& open_device_module(const std::string& path) {
  if (registered != nullptr) return *registered;
  // Never closed: its registrations with torch cannot be undone.
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    throw Error(fmt::format("device cuda: '{}' cannot be loaded: {}",
                            path,
                            reason == nullptr ? "unknown reason" : reason));
  }
  if (registered == nullptr) {
    throw Error(fmt::format("device cuda: '{}' is no module of this program", path));
  }
  return *registered;
}

}  // namespace dsmoe
