// What the program asks of CUDA. Compiled, linked and loaded without a GPU; never run on one.
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDAFunctions.h>
#include <fmt/format.h>

#include <string>
#include <typeinfo>

#include "common/device_module.h"
#include "common/error.h"

namespace dsmoe {
namespace {

class CudaModule : public DeviceModule {
 public:
  CudaModule() { register_device_module(*this); }

  int64_t n_devices() const override {
    // torch keeps the first answer to "is there CUDA?", also one from before the module was here.
    if (typeid(at::detail::getCUDAHooks()) == typeid(at::CUDAHooksInterface)) {
      throw Error("device cuda: torch was asked for CUDA before the module was loaded");
    }
    try {
      return c10::cuda::device_count_ensure_non_zero();
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      throw Error("device cuda: " + text.substr(0, text.find_first_of(".\n")));
    }
  }

  void select(int64_t index) override {
    const int64_t n = n_devices();
    if (index < 0 || index >= n) {
      throw Error(fmt::format(
          "device cuda: expected a device below {}, the number visible here, got {}", n, index));
    }
    at::globalContext().lazyInitDevice(at::kCUDA);
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
  }

  void synchronize() override { c10::cuda::device_synchronize(); }
};

CudaModule cuda_module;

}  // namespace
}  // namespace dsmoe
