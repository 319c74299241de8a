// Gives the ops their CUDA kernels, on torch's current stream.
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "csrc_kernels/moe/weighted_activation_cuda.h"

namespace dsmoe {
namespace {

// A kernel over raw pointers that starts `launch` on the current stream and throws c10::Error where
// that fails.
template <auto launch, typename... Arguments>
void on_current_stream(Arguments... arguments) {
  launch(arguments..., c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <auto launch, typename... Arguments>
void set(DeviceKernel<Arguments...>& kernel) {
  kernel = on_current_stream<launch, Arguments...>;
}

template <typename T, typename W>
void set_kernels() {
  set<launch_weighted_activation<T, W>>(WeightedActivationOnDevice<T, W>::forward);
  set<launch_weighted_activation_backward<T, W>>(WeightedActivationOnDevice<T, W>::backward);
}

struct Registration {
  Registration() {
    set_kernels<Bfloat16, float>();
    set_kernels<float, float>();
    set_kernels<double, double>();
  }
} registration;

}  // namespace
}  // namespace dsmoe
