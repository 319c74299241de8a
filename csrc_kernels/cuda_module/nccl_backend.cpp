// NCCL as a backend of Accelerator. Compiled, linked and loaded without a GPU; never run on one.
#include <c10/cuda/CUDAFunctions.h>

#include <chrono>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "distributed/accelerator.h"

// ProcessGroupNCCL::Options holds an ncclConfig_t by value: another nccl.h changes its layout.
static_assert(NCCL_MAJOR == 2 && NCCL_MINOR == 28 && NCCL_PATCH == 9,
              "expected the nccl.h of NCCL 2.28.9, with which torch 2.11.0 was built");
static_assert(sizeof(ncclConfig_t) == 80, "expected the ncclConfig_t of NCCL 2.28.9");

namespace dsmoe {
namespace {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                            int64_t rank,
                                            int64_t size,
                                            double timeout_seconds) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(static_cast<int64_t>(1000 * timeout_seconds));
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      store, static_cast<int>(rank), static_cast<int>(size), options);
  // Connect to the other ranks now, within the set-up timeout, not in the first collective.
  backend->eagerConnectSingleDevice(at::Device(at::kCUDA, c10::cuda::current_device()));
  return backend;
}

struct Registration {
  Registration() {
    register_accelerator({.device = at::kCUDA, .make_backend = make_nccl, .finish = [] {
                            c10::cuda::device_synchronize();
                          }});
  }
} registration;

}  // namespace
}  // namespace dsmoe
