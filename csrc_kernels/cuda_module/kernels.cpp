// Installs the CUDA kernels of the ops; they run on torch's current stream.
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "csrc_kernels/decode_attention/kernels.h"
#include "csrc_kernels/linear_cross_entropy/kernels.h"
#include "csrc_kernels/moe/dispatch_cuda.h"
#include "csrc_kernels/moe/expert_gemv_cuda.h"
#include "csrc_kernels/moe/router_cuda.h"
#include "csrc_kernels/moe/token_choice_cuda.h"
#include "csrc_kernels/moe/weighted_activation_cuda.h"
#include "csrc_kernels/mutual_information/kernels.h"
#include "csrc_kernels/residual_norm/kernels.h"
#include "csrc_kernels/rotary/kernels.h"

namespace dsmoe {

namespace device {

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
void check_launch() { C10_CUDA_KERNEL_LAUNCH_CHECK(); }

}  // namespace device

namespace {

template <typename... Kernels>
void install() {
  ((device_kernels<Kernels>() = cuda_kernels<Kernels>()), ...);
}

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
  set<launch_router<T, W>>(RouterOnDevice<T, W>::forward);
  set<launch_router_backward<T, W>>(RouterOnDevice<T, W>::backward);
  install<CrossEntropyKernels<T>, ResidualNormKernels<T, W>, RotaryKernels<T, W>>();
}

template <typename T>
void set_inference_kernels() {
  set<launch_expert_gemv_hidden<T>>(ExpertGemvOnDevice<T>::hidden);
  set<launch_expert_gemv_sum<T>>(ExpertGemvOnDevice<T>::sum);
}

template <typename T>
void set_row_kernels() {
  set<launch_dispatch_rows<T>>(MoveRowsOnDevice<T>::dispatch);
  set<launch_combine_rows<T>>(MoveRowsOnDevice<T>::combine);
}

struct Registration {
  Registration() {
    set_kernels<Bfloat16, float>();
    set_kernels<float, float>();
    set_kernels<double, double>();
    install<MutualInformationKernels<float>, MutualInformationKernels<double>>();
    install<DecodeAttentionKernels<Bfloat16>, DecodeAttentionKernels<float>>();
    set_inference_kernels<Bfloat16>();
    set_inference_kernels<float>();
    set<launch_choose>(TokenChoiceOnDevice::choose);
    set<launch_list_rows>(DispatchOnDevice::list);
    set<launch_list_slots>(DispatchOnDevice::list_slots);
    DispatchOnDevice::workspace_bytes = list_rows_workspace_bytes;
    set_row_kernels<Bfloat16>();
    set_row_kernels<float>();
  }
} registration;

}  // namespace
}  // namespace dsmoe
