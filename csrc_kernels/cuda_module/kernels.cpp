// Installs the CUDA kernels of the ops; they run on torch's current stream.
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "csrc_kernels/decode_attention/kernels.h"
#include "csrc_kernels/dispatch/kernels.h"
#include "csrc_kernels/expert_gemv/kernels.h"
#include "csrc_kernels/linear_cross_entropy/kernels.h"
#include "csrc_kernels/mutual_information/kernels.h"
#include "csrc_kernels/residual_norm/kernels.h"
#include "csrc_kernels/rotary/kernels.h"
#include "csrc_kernels/router/kernels.h"
#include "csrc_kernels/token_choice/kernels.h"
#include "csrc_kernels/weighted_activation/kernels.h"

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

template <typename T, typename W>
void install_for_training() {
  install<CrossEntropyKernels<T>,
          ResidualNormKernels<T, W>,
          RotaryKernels<T, W>,
          RouterKernels<T, W>,
          WeightedActivationKernels<T, W>>();
}

template <typename T>
void install_for_inference() {
  install<DecodeAttentionKernels<T>, ExpertGemvKernels<T>, MoveRowsKernels<T>>();
}

struct Registration {
  Registration() {
    install_for_training<Bfloat16, float>();
    install_for_training<float, float>();
    install_for_training<double, double>();
    install_for_inference<Bfloat16>();
    install_for_inference<float>();
    install<DispatchKernels, TokenChoiceKernels>();
    install<MutualInformationKernels<float>, MutualInformationKernels<double>>();
  }
} registration;

}  // namespace
}  // namespace dsmoe
