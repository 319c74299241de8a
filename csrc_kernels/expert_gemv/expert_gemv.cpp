#include "csrc_kernels/expert_gemv/expert_gemv.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

void check_weights(const char* name, const at::Tensor& x, const at::Tensor& expert_weights) {
  TORCH_CHECK(expert_weights.dim() == 2 && expert_weights.size(0) == x.size(0) &&
                  expert_weights.size(1) > 0 && expert_weights.is_contiguous() &&
                  expert_weights.scalar_type() == at::kFloat,
              name,
              ": expected expert_weights [",
              x.size(0),
              ", n_experts] float32, contiguous, got ",
              expert_weights.sizes());
}

void check(const char* name, const at::Tensor& x, const WideLinear& linear) {
  const auto& weight = linear.weight;
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(0) >= 1 && x.size(0) <= kMostGemvTokens,
              name,
              ": expected 1 to ",
              kMostGemvTokens,
              " contiguous rows, got ",
              x.sizes());
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous() && weight.size(1) == x.size(1) &&
                  weight.scalar_type() == x.scalar_type(),
              name,
              ": expected a contiguous weight over ",
              x.size(1),
              " inputs of type ",
              x.scalar_type(),
              ", got ",
              weight.sizes(),
              " ",
              weight.scalar_type());
  TORCH_CHECK(!linear.bias.defined() ||
                  (linear.bias.numel() == weight.size(0) &&
                   linear.bias.scalar_type() == at::kFloat && linear.bias.is_contiguous()),
              name,
              ": expected a bias [",
              weight.size(0),
              "] float32");
}

}  // namespace

bool has_expert_gemv(const at::Tensor& x) {
  return !x.is_cpu() && device_kernels<ExpertGemvKernels<float>>().hidden != nullptr &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

bool serves_expert_gemv(const at::Tensor& x) {
  return !at::GradMode::is_enabled() && x.size(0) >= 1 && x.size(0) <= kMostGemvTokens &&
         has_expert_gemv(x);
}

at::Tensor expert_gemv_hidden(const at::Tensor& x,
                              Activation activation,
                              const WideLinear& up,
                              const WideLinear& gate,
                              const at::Tensor& expert_weights,
                              bool weighted) {
  constexpr const char* kName = "expert_gemv_hidden";
  check(kName, x, up);
  if (expert_weights.defined()) check_weights(kName, x, expert_weights);
  TORCH_CHECK(gate.weight.defined() == (activation == Activation::kSwiglu),
              kName,
              ": expected a gate for swiglu and for nothing else");
  if (gate.weight.defined()) check(kName, x, gate);
  const int64_t n_experts = expert_weights.defined() ? expert_weights.size(1) : 1;
  TORCH_CHECK(up.weight.size(0) % n_experts == 0 &&
                  (!gate.weight.defined() || gate.weight.sizes() == up.weight.sizes()),
              kName,
              ": expected rows of ",
              n_experts,
              " experts, got ",
              up.weight.sizes());
  if (!has_expert_gemv(x)) {
    return expert_gemv_hidden_ref(x, activation, up, gate, expert_weights, weighted);
  }
  auto hidden = at::empty({x.size(0), up.weight.size(0)}, x.options());
  dispatch_row_types(kName, x.scalar_type(), [&]<typename T>() {
    device_kernels<ExpertGemvKernels<T>>().hidden(activation,
                                                  {.n_tokens = x.size(0),
                                                   .n_experts = n_experts,
                                                   .width = up.weight.size(0) / n_experts,
                                                   .d_in = x.size(1),
                                                   .x = pointer<const T>(x),
                                                   .up = pointer<const T>(up.weight),
                                                   .gate = pointer<const T>(gate.weight),
                                                   .up_bias = pointer<const float>(up.bias),
                                                   .gate_bias = pointer<const float>(gate.bias),
                                                   .weights = pointer<const float>(expert_weights),
                                                   .weighted = weighted,
                                                   .hidden = pointer<T>(hidden)});
  });
  return hidden;
}

at::Tensor expert_gemv_sum(const at::Tensor& hidden,
                           const WideLinear& down,
                           const at::Tensor& expert_weights,
                           bool weighted) {
  constexpr const char* kName = "expert_gemv_sum";
  check(kName, hidden, down);
  check_weights(kName, hidden, expert_weights);
  const int64_t n_experts = expert_weights.size(1);
  TORCH_CHECK(hidden.size(1) % n_experts == 0,
              kName,
              ": expected columns of ",
              n_experts,
              " experts, got ",
              hidden.sizes());
  if (!has_expert_gemv(hidden)) {
    return expert_gemv_sum_ref(hidden, down, expert_weights, weighted);
  }
  auto y = at::empty({hidden.size(0), down.weight.size(0)}, hidden.options());
  dispatch_row_types(kName, hidden.scalar_type(), [&]<typename T>() {
    device_kernels<ExpertGemvKernels<T>>().sum({.n_tokens = hidden.size(0),
                                                .n_experts = n_experts,
                                                .width = hidden.size(1) / n_experts,
                                                .d_out = down.weight.size(0),
                                                .hidden = pointer<const T>(hidden),
                                                .down = pointer<const T>(down.weight),
                                                .bias = pointer<const float>(down.bias),
                                                .weights = pointer<const float>(expert_weights),
                                                .weighted = weighted,
                                                .y = pointer<T>(y)});
  });
  return y;
}

}  // namespace dsmoe
