#include "csrc_kernels/router/router.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/expert_gemv/expert_gemv.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kName = "route";

// x weight^T of a handful of tokens on a device.
at::Tensor gemv_product(const at::Tensor& x, const at::Tensor& weight) {
  return expert_gemv_hidden(x, Activation::kIdentity, {weight, {}}, {}, {}, /*weighted=*/false);
}

struct Tensors {
  at::Tensor input;  // x, or the hidden layer [n_tokens, 2 * d_hidden] before its activation
  at::Tensor out, logits, probs;
  bool gated, sigmoid;
};

template <typename T, typename W>
RouterTable<T, W> table_of(const Tensors& t) {
  return {.n_rows = t.input.size(0),
          .n_experts = t.out.size(0),
          .width = t.out.size(1),
          .gated = t.gated,
          .sigmoid = t.sigmoid,
          .x = pointer<const T>(t.input),
          .weight = pointer<const W>(t.out),
          .logits = pointer<W>(t.logits),
          .probs = pointer<W>(t.probs)};
}

struct Route : torch::autograd::Function<Route> {
  static variable_list forward(AutogradContext* ctx,
                               const at::Tensor& x,
                               const OptionalTensor& gate,
                               const OptionalTensor& up,
                               const OptionalTensor& hidden,
                               const at::Tensor& out,
                               bool sigmoid,
                               bool few) {
    (void)up;  // its values are in hidden
    Tensors t{.input = x,
              .out = out,
              .logits = {},
              .probs = {},
              .gated = gate.has_value(),
              .sigmoid = sigmoid};
    if (t.gated) t.input = few ? gemv_product(x, *hidden) : at::mm(x, hidden->t());
    t.logits = at::empty({x.size(0), out.size(0)}, out.options().requires_grad(false));
    t.probs = at::empty_like(t.logits);
    dispatch_float_types(kName, x.scalar_type(), [&]<typename T, typename W>() {
      const auto table = table_of<T, W>(t);
      kernels_for<RouterKernels<T, W>>(x.is_cpu()).forward(table);
    });
    ctx->save_for_backward({x, tensor_or_undefined(hidden), out, t.probs, t.gated ? t.input : x});
    ctx->saved_data["gated"] = t.gated;
    ctx->saved_data["sigmoid"] = sigmoid;
    ctx->saved_data["weight_type"] = t.gated ? gate->scalar_type() : out.scalar_type();
    ctx->set_materialize_grads(false);
    return {t.logits, t.probs};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto& hidden = saved[1];
    const Tensors t{.input = saved[4],
                    .out = saved[2],
                    .logits = {},
                    .probs = saved[3],
                    .gated = ctx->saved_data["gated"].toBool(),
                    .sigmoid = ctx->saved_data["sigmoid"].toBool()};
    const auto contiguous = [](const at::Tensor& grad) {
      return grad.defined() ? grad.contiguous() : grad;
    };
    const auto grad_logits = contiguous(grads[0]);
    const auto grad_probs = contiguous(grads[1]);
    const auto grad_input = at::empty_like(t.input);
    const int64_t n_chunks =
        x.is_cpu() ? router_chunks(x.size(0)) : router_device_chunks(x.size(0), t.out.size(1));
    const auto partial = at::empty({n_chunks, t.out.size(0), t.out.size(1)}, t.out.options());
    dispatch_float_types(kName, x.scalar_type(), [&]<typename T, typename W>() {
      const auto table = table_of<T, W>(t);
      const RouterGradients<T, W> gradients{.grad_logits = pointer<const W>(grad_logits),
                                            .grad_probs = pointer<const W>(grad_probs),
                                            .grad_x = pointer<T>(grad_input),
                                            .partial_weight = pointer<W>(partial)};
      kernels_for<RouterKernels<T, W>>(x.is_cpu()).backward(table, gradients);
    });
    const auto none = at::Tensor();
    const auto grad_out = partial.sum(0);
    if (!t.gated) return {grad_input, none, none, none, grad_out, none, none};
    const auto grad_hidden = at::mm(grad_input.t(), x)  // [2 * d_hidden, d_model]
                                 .to(ctx->saved_data["weight_type"].toScalarType())
                                 .chunk(2, 0);
    return {at::mm(grad_input, hidden), grad_hidden[0], grad_hidden[1], none, grad_out, none, none};
  }
};

void check(const at::Tensor& x, const RouterWeights& w) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous(),
              kName,
              ": expected x [n_tokens, d_model], contiguous, got ",
              x.sizes());
  const bool gated = w.gate.defined();
  const int64_t width = gated ? w.gate.size(0) : x.size(1);
  TORCH_CHECK(w.out.dim() == 2 && w.out.size(1) == width && w.out.is_contiguous() &&
                  w.out.scalar_type() == wide,
              kName,
              ": expected out [n_experts, ",
              width,
              "] of type ",
              wide,
              ", got ",
              w.out.sizes(),
              " ",
              w.out.scalar_type());
  TORCH_CHECK(!gated || (w.up.defined() && w.gate.sizes() == w.up.sizes() && w.hidden.defined() &&
                         w.hidden.dim() == 2 && w.hidden.size(0) == 2 * width &&
                         w.hidden.size(1) == x.size(1) && w.gate.size(1) == x.size(1) &&
                         w.hidden.scalar_type() == x.scalar_type()),
              kName,
              ": expected gate, up [d_hidden, ",
              x.size(1),
              "] and hidden [2 * d_hidden, ",
              x.size(1),
              "] of type ",
              x.scalar_type());
}

bool has_kernel(const at::Tensor& x, const RouterWeights& weights) {
  return x.is_cpu() || (device_kernels<RouterKernels<float, float>>().forward != nullptr &&
                        weights.out.size(0) >= 1 && weights.out.size(0) <= kMostRouterExperts);
}

}  // namespace

RouterResult route(const at::Tensor& x, const RouterWeights& weights, bool sigmoid) {
  check(x, weights);
  if (!has_kernel(x, weights)) return route_ref(x, weights, sigmoid);
  const auto outputs = Route::apply(x,
                                    optional(weights.gate),
                                    optional(weights.up),
                                    optional(weights.hidden),
                                    weights.out,
                                    sigmoid,
                                    serves_expert_gemv(x));
  return {outputs[0], outputs[1]};
}

}  // namespace dsmoe
