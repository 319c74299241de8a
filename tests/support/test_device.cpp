#include "support/test_device.h"

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/device_module.h"
#include "common/error.h"
#include "distributed/accelerator.h"
#include "support/emulated_kernels.h"
#include "support/fake_device.h"

namespace dsmoe {
namespace {

// Repeats the work instead of replaying a device's recording.
class EmulatedGraph : public DeviceGraph {
 public:
  explicit EmulatedGraph(std::function<void()> work) : work_(std::move(work)) {
    const ForbidWaits forbidden;
    work_();
  }
  void replay() override { work_(); }

 private:
  std::function<void()> work_;
};

class EmulatedModule : public DeviceModule {
 public:
  EmulatedModule() { register_device_module(*this); }
  int64_t n_devices() const override { return 2; }
  void select(int64_t) override {}
  void synchronize() override {}
  int64_t peak_memory_bytes() override { return 0; }
  void reset_peak_memory() override {}
  int64_t total_memory_bytes() override { return int64_t{1} << 30; }
  std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) override {
    return std::make_unique<EmulatedGraph>(work);
  }
};

c10::Device open() {
  if (is_emulated()) {
    install_emulated_kernels();
    static EmulatedModule module;
    return fake_device();
  }
  const char* path = std::getenv("DSMOE_CUDA_MODULE");
  if (path == nullptr) throw Error("DSMOE_TEST_DEVICE=cuda: DSMOE_CUDA_MODULE is not set");
  open_device_module(path).select(0);
  accelerator_of(c10::kCUDA);  // throws where the module did not bring its collectives
  return c10::Device(c10::kCUDA, 0);
}

// A real device is opened before any test: torch asks for CUDA once, with the first backward pass.
// Where that fails, test_device() tries again and throws.
const bool is_opened = [] {
  try {
    if (!is_emulated()) test_device();
    return true;
  } catch (const Error&) {
    return false;
  }
}();

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
