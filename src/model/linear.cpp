#include "model/linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

namespace dsmoe {

at::Tensor at_least_float32(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

LinearImpl::LinearImpl(int64_t d_in, int64_t d_out, bool with_bias) {
  weight = register_parameter("weight", at::empty({d_out, d_in}, at::kFloat));
  if (with_bias) bias = register_parameter("bias", at::empty({d_out}, at::kFloat));
}

at::Tensor LinearImpl::weight_as(at::ScalarType dtype) {
  TORCH_CHECK(
      weight.numel() > 0 || !packed_weight.defined(),
      "Linear: expected the original weight, but pack_weights freed it; gradients need a model "
      "that is not packed or keeps its originals");
  return copy.differentiable(weight, dtype);
}

void LinearImpl::pack(const PackOptions& options, int64_t n_experts, ExpertAxis axis) {
  packed_weight = pack_matrix(weight,
                              options.format,
                              n_experts,
                              axis,
                              options.keep_original ? ReadCallback() : options.on_read);
  if (options.keep_original) return;
  const at::NoGradGuard no_grad;
  copy = {};
  weight.set_data(at::empty({0}, weight.options()));
}

bool LinearImpl::runs_packed() const {
  return packed_weight.defined() && !at::GradMode::is_enabled();
}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  if (runs_packed()) return packed_linear(x.contiguous(), {packed()}, x.scalar_type())[0];
  const auto b =
      bias.defined() ? c10::optional<at::Tensor>(bias.to(x.scalar_type())) : c10::nullopt;
  return at::linear(x, weight_as(x.scalar_type()), b);
}

std::vector<at::Tensor> project_together(const at::Tensor& x, const std::vector<Linear>& layers) {
  std::vector<at::Tensor> results;
  if (layers.front()->runs_packed()) {
    std::vector<PackedLinear> packed;
    for (const auto& layer : layers) packed.push_back(layer->packed());
    return packed_linear(x.contiguous(), packed, x.scalar_type());
  }
  for (const auto& layer : layers) results.push_back(layer.ptr()->forward(x));
  return results;
}

}  // namespace dsmoe
