#include "support/test_device.h"

#include <cstdlib>
#include <string>

#include "common/device_module.h"
#include "common/error.h"
#include "support/emulated_kernels.h"
#include "support/fake_device.h"

namespace dsmoe {
namespace {

c10::Device open() {
  if (is_emulated()) {
    install_emulated_kernels();
    return fake_device();
  }
  const char* path = std::getenv("DSMOE_CUDA_MODULE");
  if (path == nullptr) throw Error("DSMOE_TEST_DEVICE=cuda: DSMOE_CUDA_MODULE is not set");
  open_device_module(path).select(0);
  return c10::Device(c10::kCUDA, 0);
}

}  // namespace

bool is_emulated() {
  const char* name = std::getenv("DSMOE_TEST_DEVICE");
  return name == nullptr || std::string(name) != "cuda";
}

c10::Device test_device() {
  static const c10::Device device = open();
  return device;
}

}  // namespace dsmoe
