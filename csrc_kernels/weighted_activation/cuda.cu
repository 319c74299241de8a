#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/weighted_activation/body.h"

namespace dsmoe {
namespace device {

// Plain functions: nvcc takes the launch bounds of templates for missing.
#define DSMOE_KERNELS(kActivation, T, W)                                                 \
  __global__ void __launch_bounds__(kWeightedActivationLanes)                            \
      weighted_activation_##kActivation##_##T(const WeightedActivationRows<T, W> rows) { \
    CudaContext ctx;                                                                     \
    weighted_activation_body<Activation::kActivation>(ctx, rows);                        \
  }                                                                                      \
  __global__ void __launch_bounds__(kWeightedActivationLanes)                            \
      weighted_activation_backward_##kActivation##_##T(                                  \
          const WeightedActivationRows<T, W> rows,                                       \
          const WeightedActivationGradients<T, W> gradients) {                           \
    CudaContext ctx;                                                                     \
    weighted_activation_backward_body<Activation::kActivation>(ctx, rows, gradients);    \
  }
#define DSMOE_FOR_ACTIVATIONS(MACRO, T, W) \
  MACRO(kIdentity, T, W)                   \
  MACRO(kGelu, T, W)                       \
  MACRO(kGeluTanh, T, W)                   \
  MACRO(kSwiglu, T, W)                     \
  MACRO(kSilu, T, W)                       \
  MACRO(kQuickGelu, T, W)                  \
  MACRO(kReluSquared, T, W)
DSMOE_FOR_ACTIVATIONS(DSMOE_KERNELS, Bfloat16, float)
DSMOE_FOR_ACTIVATIONS(DSMOE_KERNELS, float, float)
DSMOE_FOR_ACTIVATIONS(DSMOE_KERNELS, double, double)
#undef DSMOE_KERNELS

}  // namespace device

#define DSMOE_FORWARD_CASE(kActivation, T, W) \
  case Activation::kActivation:               \
    return launch(weighted_activation_##kActivation##_##T, shape, rows);
#define DSMOE_BACKWARD_CASE(kActivation, T, W) \
  case Activation::kActivation:                \
    return launch(weighted_activation_backward_##kActivation##_##T, shape, rows, gradients);
#define DSMOE_TABLE(T, W)                                                                \
  namespace device {                                                                     \
  static void forward(Activation activation, const WeightedActivationRows<T, W>& rows) { \
    const auto shape = weighted_activation_shape(rows);                                  \
    switch (activation) { DSMOE_FOR_ACTIVATIONS(DSMOE_FORWARD_CASE, T, W) }              \
  }                                                                                      \
  static void backward(Activation activation,                                            \
                       const WeightedActivationRows<T, W>& rows,                         \
                       const WeightedActivationGradients<T, W>& gradients) {             \
    const auto shape = weighted_activation_shape(rows);                                  \
    switch (activation) { DSMOE_FOR_ACTIVATIONS(DSMOE_BACKWARD_CASE, T, W) }             \
  }                                                                                      \
  }                                                                                      \
  template <>                                                                            \
  WeightedActivationKernels<T, W> cuda_kernels() {                                       \
    return {device::forward, device::backward};                                          \
  }
DSMOE_TABLE(Bfloat16, float)
DSMOE_TABLE(float, float)
DSMOE_TABLE(double, double)
#undef DSMOE_TABLE
#undef DSMOE_BACKWARD_CASE
#undef DSMOE_FORWARD_CASE
#undef DSMOE_FOR_ACTIVATIONS

}  // namespace dsmoe
