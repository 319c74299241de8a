#include "csrc_kernels/residual_norm/residual_norm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kName = "residual_norm";

struct Tensors {
  at::Tensor x, y, weight, bias, residual, normed, mean, scale;
};

template <typename T, typename W>
ResidualNormRows<T, W> rows_of(const Tensors& t, double eps) {
  const int64_t width = t.x.size(-1);
  return {.n_rows = t.x.numel() / width,
          .width = width,
          .eps = static_cast<W>(eps),
          .x = pointer<const W>(t.x),
          .y = pointer<const T>(t.y),
          .weight = pointer<const W>(t.weight),
          .bias = pointer<const W>(t.bias),
          .residual = pointer<W>(t.residual),
          .normed = pointer<T>(t.normed),
          .mean = pointer<W>(t.mean),
          .scale = pointer<W>(t.scale)};
}

// Computes residual, normed, mean and scale from x, y, weight and bias.
void run(Tensors& t, NormKind kind, double eps, at::ScalarType type) {
  if (t.y.defined()) t.residual = at::empty_like(t.x);
  t.normed = at::empty(t.x.sizes(), t.x.options().dtype(type));
  t.mean = at::empty({t.x.numel() / t.x.size(-1)}, t.x.options());
  t.scale = at::empty_like(t.mean);
  dispatch_float_types(kName, type, [&]<typename T, typename W>() {
    const auto rows = rows_of<T, W>(t, eps);
    kernels_for<ResidualNormKernels<T, W>>(t.x.is_cpu()).forward(kind, rows);
  });
}

// Returns {normed}, or {normed, residual} if y is defined.
struct ResidualNorm : torch::autograd::Function<ResidualNorm> {
  static variable_list forward(AutogradContext* ctx,
                               const at::Tensor& x,
                               const OptionalTensor& y,
                               const at::Tensor& weight,
                               const OptionalTensor& bias,
                               int64_t kind,
                               double eps,
                               at::ScalarType type) {
    Tensors t;
    t.x = x;
    t.y = tensor_or_undefined(y);
    t.weight = weight;
    t.bias = tensor_or_undefined(bias);
    run(t, static_cast<NormKind>(kind), eps, type);
    ctx->save_for_backward({t.y.defined() ? t.residual : x, weight, t.bias, t.mean, t.scale});
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["type"] = type;
    ctx->saved_data["has_y"] = t.y.defined();
    ctx->set_materialize_grads(false);
    variable_list outputs{t.normed};
    if (t.y.defined()) outputs.push_back(t.residual);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const bool has_y = ctx->saved_data["has_y"].toBool();
    const auto type = ctx->saved_data["type"].toScalarType();
    const auto kind = static_cast<NormKind>(ctx->saved_data["kind"].toInt());
    const auto grad_residual = has_y && grads[1].defined() ? grads[1].contiguous() : at::Tensor();
    if (!grads[0].defined()) return unnormed_gradients(grad_residual, has_y, type);
    const auto grad_normed = grads[0].contiguous();
    Tensors t;
    t.x = saved[0];  // the residual stream
    t.weight = saved[1];
    t.bias = saved[2];
    t.mean = saved[3];
    t.scale = saved[4];
    const int64_t n_rows = t.mean.size(0);
    const int64_t n_chunks =
        t.x.is_cpu() ? residual_norm_chunks(n_rows) : residual_norm_device_chunks(n_rows);
    const auto grad_x = at::empty_like(t.x);
    // If x and y have one type, their gradients are equal.
    const bool one_type = type == t.x.scalar_type();
    const auto grad_y =
        has_y && !one_type ? at::empty_like(t.x, t.x.options().dtype(type)) : at::Tensor();
    const auto partial_weight = at::empty({n_chunks, t.x.size(-1)}, t.x.options());
    const auto partial_bias = t.bias.defined() ? at::empty_like(partial_weight) : at::Tensor();
    dispatch_float_types(kName, type, [&]<typename T, typename W>() {
      const auto rows = rows_of<T, W>(t, 0.0);
      const ResidualNormGradients<T, W> gradients{.grad_normed = pointer<const T>(grad_normed),
                                                  .grad_residual = pointer<const W>(grad_residual),
                                                  .grad_x = pointer<W>(grad_x),
                                                  .grad_y = pointer<T>(grad_y),
                                                  .partial_weight = pointer<W>(partial_weight),
                                                  .partial_bias = pointer<W>(partial_bias)};
      kernels_for<ResidualNormKernels<T, W>>(t.x.is_cpu()).backward(kind, rows, gradients);
    });
    const auto none = at::Tensor();
    return {grad_x,
            has_y && one_type ? grad_x : grad_y,
            partial_weight.sum(0),
            partial_bias.defined() ? partial_bias.sum(0) : none,
            none,
            none,
            none};
  }

  // Gradients if only the residual was used.
  static variable_list unnormed_gradients(const at::Tensor& grad_residual,
                                          bool has_y,
                                          at::ScalarType type) {
    const auto grad_y = has_y && grad_residual.defined() ? grad_residual.to(type) : at::Tensor();
    return {grad_residual, grad_y, {}, {}, {}, {}, {}};
  }
};

void check(const at::Tensor& x,
           const at::Tensor& y,
           const NormParameters& parameters,
           at::ScalarType type) {
  const auto wide = type == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(x.dim() >= 1 && x.is_contiguous() && x.scalar_type() == wide,
              kName,
              ": expected x [..., d_model], contiguous, of type ",
              wide,
              ", got ",
              x.sizes(),
              " ",
              x.scalar_type());
  TORCH_CHECK(
      !y.defined() || (y.sizes() == x.sizes() && y.is_contiguous() && y.scalar_type() == type),
      kName,
      ": expected y like x ",
      x.sizes(),
      ", contiguous, of type ",
      type,
      ", got ",
      y.defined() ? y.sizes() : at::IntArrayRef{});
  TORCH_CHECK(parameters.kind == NormKind::kLayerNorm || !parameters.bias.defined(),
              kName,
              ": RMSNorm has no bias");
  for (const auto* parameter : {&parameters.weight, &parameters.bias}) {
    TORCH_CHECK(
        !parameter->defined() || (parameter->dim() == 1 && parameter->size(0) == x.size(-1) &&
                                  parameter->scalar_type() == wide && parameter->is_contiguous()),
        kName,
        ": expected weight and bias [",
        x.size(-1),
        "] of type ",
        wide);
  }
}

}  // namespace

ResidualNormOutput residual_norm(const at::Tensor& x,
                                 const at::Tensor& y,
                                 const NormParameters& parameters,
                                 at::ScalarType type) {
  check(x, y, parameters, type);
  if (!x.is_cpu() && device_kernels<ResidualNormKernels<float, float>>().forward == nullptr) {
    return residual_norm_ref(x, y, parameters, type);
  }
  if (!at::GradMode::is_enabled()) {
    // An autograd function costs more than the norm of one token.
    Tensors t;
    t.x = x;
    t.y = y;
    t.weight = parameters.weight;
    t.bias = parameters.bias;
    run(t, parameters.kind, parameters.eps, type);
    return {y.defined() ? t.residual : x, t.normed};
  }
  const auto outputs = ResidualNorm::apply(x,
                                           optional(y),
                                           parameters.weight,
                                           optional(parameters.bias),
                                           static_cast<int64_t>(parameters.kind),
                                           parameters.eps,
                                           type);
  return {y.defined() ? outputs[1] : x, outputs[0]};
}

}  // namespace dsmoe
