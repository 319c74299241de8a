#include "csrc_kernels/weighted_activation/kernels.h"

#include "csrc_kernels/common/simd.h"

namespace dsmoe {
namespace {

constexpr int64_t kSerialElements = 1 << 15;  // below, waking threads costs more than the work

template <typename W>
struct ValueAndSlope {
  W value;
  W slope;
};

template <typename W>
inline ValueAndSlope<W> gelu_tanh(W x) {
  constexpr W kScale = W(0.79788456080286536);  // sqrt(2 / pi)
  constexpr W kCubic = W(0.044715);
  const W t = tanh_of(kScale * (x + kCubic * x * x * x));
  const W inner = kScale * (W(1) + W(3) * kCubic * x * x);
  return {W(0.5) * x * (W(1) + t), W(0.5) * (W(1) + t) + W(0.5) * x * (W(1) - t * t) * inner};
}

template <typename W>
inline ValueAndSlope<W> gelu(W x) {
  const W cdf = W(0.5) * (W(1) + erf_of(x * W(0.70710678118654752)));
  const W density = W(0.39894228040143268) * exp_of(W(-0.5) * x * x);
  return {x * cdf, cdf + x * density};
}

template <typename W>
inline ValueAndSlope<W> silu(W x) {
  const W s = sigmoid(x);
  return {x * s, s * (W(1) + x * (W(1) - s))};
}

// x sigmoid(1.702 x)
template <typename W>
inline ValueAndSlope<W> quick_gelu(W x) {
  const auto scaled = silu(W(1.702) * x);
  return {scaled.value / W(1.702), scaled.slope};
}

template <typename W>
inline ValueAndSlope<W> relu_squared(W x) {
  const W positive = x > W(0) ? x : W(0);
  return {positive * positive, W(2) * positive};
}

template <Activation kActivation, typename W>
inline ValueAndSlope<W> activate(W x) {
  if constexpr (kActivation == Activation::kGelu) return gelu(x);
  if constexpr (kActivation == Activation::kGeluTanh) return gelu_tanh(x);
  if constexpr (kActivation == Activation::kSwiglu) return silu(x);
  if constexpr (kActivation == Activation::kSilu) return silu(x);
  if constexpr (kActivation == Activation::kQuickGelu) return quick_gelu(x);
  if constexpr (kActivation == Activation::kReluSquared) return relu_squared(x);
  return {x, W(1)};
}

template <Activation kActivation, typename T, typename W>
void forward_block(int64_t n, const T* up, const T* gate, W weight, T* hidden) {
#pragma omp simd simdlen(16)
  for (int64_t i = 0; i < n; ++i) {
    W value;
    if constexpr (kActivation == Activation::kSwiglu) {
      value = activate<kActivation>(load(gate[i])).value * load(up[i]);
    } else {
      value = activate<kActivation>(load(up[i])).value;
    }
    store(hidden[i], value * weight);
  }
}

// Returns the sum of grad_hidden times the unweighted activation: the gradient of the weight.
template <Activation kActivation, typename T, typename W>
W backward_block(int64_t n,
                 const T* up,
                 const T* gate,
                 W weight,
                 const T* grad_hidden,
                 T* hidden,
                 T* grad_up,
                 T* grad_gate) {
  W sum = 0;
#pragma omp simd simdlen(16) reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const W grad = load(grad_hidden[i]);
    const W u = load(up[i]);
    W value;
    if constexpr (kActivation == Activation::kSwiglu) {
      const auto silu_of_gate = activate<kActivation>(static_cast<W>(load(gate[i])));
      value = silu_of_gate.value * u;
      store(grad_gate[i], grad * weight * u * silu_of_gate.slope);
      store(grad_up[i], grad * weight * silu_of_gate.value);
    } else {
      const auto activated = activate<kActivation>(u);
      value = activated.value;
      store(grad_up[i], grad * weight * activated.slope);
    }
    store(hidden[i], value * weight);
    sum += grad * value;
  }
  return sum;
}

template <Activation kActivation, typename T, typename W>
void forward_rows(const WeightedActivationRows<T, W>& rows) {
  const int64_t n_blocks = rows.n_rows * rows.n_experts;
#pragma omp parallel for if (n_blocks * rows.width > kSerialElements)
  for (int64_t i = 0; i < n_blocks; ++i) {
    const int64_t at = i * rows.width;
    forward_block<kActivation>(rows.width,
                               rows.up + at,
                               rows.gate == nullptr ? nullptr : rows.gate + at,
                               rows.weights == nullptr ? W(1) : rows.weights[i],
                               rows.hidden + at);
  }
}

template <Activation kActivation, typename T, typename W>
void backward_rows(const WeightedActivationRows<T, W>& rows,
                   const WeightedActivationGradients<T, W>& gradients) {
  const int64_t n_blocks = rows.n_rows * rows.n_experts;
#pragma omp parallel for if (n_blocks * rows.width > kSerialElements)
  for (int64_t i = 0; i < n_blocks; ++i) {
    const int64_t at = i * rows.width;
    const bool gated = rows.gate != nullptr;
    const W sum = backward_block<kActivation>(rows.width,
                                              rows.up + at,
                                              gated ? rows.gate + at : nullptr,
                                              rows.weights == nullptr ? W(1) : rows.weights[i],
                                              gradients.grad_hidden + at,
                                              rows.hidden + at,
                                              gradients.grad_up + at,
                                              gated ? gradients.grad_gate + at : nullptr);
    if (gradients.grad_weights != nullptr) gradients.grad_weights[i] = sum;
  }
}

template <typename T, typename W>
void weighted_activation(Activation activation, const WeightedActivationRows<T, W>& rows) {
  switch (activation) {
    case Activation::kIdentity:
      return forward_rows<Activation::kIdentity>(rows);
    case Activation::kGelu:
      return forward_rows<Activation::kGelu>(rows);
    case Activation::kGeluTanh:
      return forward_rows<Activation::kGeluTanh>(rows);
    case Activation::kSwiglu:
      return forward_rows<Activation::kSwiglu>(rows);
    case Activation::kSilu:
      return forward_rows<Activation::kSilu>(rows);
    case Activation::kQuickGelu:
      return forward_rows<Activation::kQuickGelu>(rows);
    case Activation::kReluSquared:
      return forward_rows<Activation::kReluSquared>(rows);
  }
}

template <typename T, typename W>
void weighted_activation_backward(Activation activation,
                                  const WeightedActivationRows<T, W>& rows,
                                  const WeightedActivationGradients<T, W>& gradients) {
  switch (activation) {
    case Activation::kIdentity:
      return backward_rows<Activation::kIdentity>(rows, gradients);
    case Activation::kGelu:
      return backward_rows<Activation::kGelu>(rows, gradients);
    case Activation::kGeluTanh:
      return backward_rows<Activation::kGeluTanh>(rows, gradients);
    case Activation::kSwiglu:
      return backward_rows<Activation::kSwiglu>(rows, gradients);
    case Activation::kSilu:
      return backward_rows<Activation::kSilu>(rows, gradients);
    case Activation::kQuickGelu:
      return backward_rows<Activation::kQuickGelu>(rows, gradients);
    case Activation::kReluSquared:
      return backward_rows<Activation::kReluSquared>(rows, gradients);
  }
}

}  // namespace

template <>
WeightedActivationKernels<Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {weighted_activation, weighted_activation_backward};
}
template <>
WeightedActivationKernels<float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {weighted_activation, weighted_activation_backward};
}
template <>
WeightedActivationKernels<double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {weighted_activation, weighted_activation_backward};
}

}  // namespace dsmoe
