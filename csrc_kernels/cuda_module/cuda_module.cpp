// The DeviceModule of CUDA.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <string>
#include <typeinfo>

#include "common/device_module.h"
#include "common/error.h"

namespace dsmoe {
namespace {

class CudaGraph : public DeviceGraph {
 public:
  explicit CudaGraph(const std::function<void()>& work) {
    // A CUDA graph cannot capture the default stream.
    const auto stream = c10::cuda::getStreamFromPool();
    c10::cuda::device_synchronize();
    const c10::cuda::CUDAStreamGuard guard(stream);
    graph_.capture_begin();
    try {
      work();
    } catch (...) {
      // Discard the partial capture; rethrow the first error.
      try {
        graph_.capture_end();
      } catch (const c10::Error&) {
      }
      throw;
    }
    graph_.capture_end();
  }
  void replay() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

class CudaModule : public DeviceModule {
 public:
  CudaModule() { register_device_module(*this); }

  int64_t n_devices() const override {
    // torch caches whether CUDA is present: its first query must come after the module is loaded.
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

  int64_t peak_memory_bytes() override {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
    return stats.allocated_bytes.at(0).peak;  // index 0: all pools together
  }

  void reset_peak_memory() override {
    c10::cuda::CUDACachingAllocator::resetPeakStats(c10::cuda::current_device());
  }

  int64_t total_memory_bytes() override {
    size_t n_free = 0;
    size_t n_total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&n_free, &n_total));
    return static_cast<int64_t>(n_total);
  }

  std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) override {
    return std::make_unique<CudaGraph>(work);
  }
};

CudaModule cuda_module;

}  // namespace
}  // namespace dsmoe
