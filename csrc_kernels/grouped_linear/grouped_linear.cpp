#include "csrc_kernels/grouped_linear/grouped_linear.h"

#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t axis_dim(ExpertAxis axis) { return axis == ExpertAxis::kRows ? 0 : 1; }

at::Tensor expert_block(const at::Tensor& weight, int64_t i, int64_t n_experts, ExpertAxis axis) {
  const int64_t width = weight.size(axis_dim(axis)) / n_experts;
  return weight.narrow(axis_dim(axis), i * width, width);
}

// oneDNN compiles its product for every number of rows that it meets and keeps a thousand of them,
// half a MB each; counts are rounded up, by a quarter at most above 16, so that few sizes remain.
int64_t rounded_rows(int64_t n_rows) {
  int64_t step = 16;
  while (8 * step < n_rows) step *= 2;
  return (n_rows + step - 1) / step * step;
}

// Rows begin .. begin + n_rows and as many zero rows as make n_rounded.
at::Tensor zero_padded(const at::Tensor& x, int64_t begin, int64_t n_rows, int64_t n_rounded) {
  const auto rows = x.narrow(0, begin, n_rows);
  if (n_rounded == n_rows) return rows;
  auto padded = at::empty({n_rounded, x.size(1)}, x.options());
  padded.narrow(0, 0, n_rows).copy_(rows);
  padded.narrow(0, n_rows, n_rounded - n_rows).zero_();
  return padded;
}

// y = x . matrix for rows begin .. begin + n_rows, experts in ascending order: what is written
// beyond them belongs to those that follow.
void fill_rows(at::Tensor& y,
               const at::Tensor& x,
               const at::Tensor& matrix,
               int64_t begin,
               int64_t n_rows) {
  const int64_t n_rounded = rounded_rows(n_rows);
  if (begin + n_rounded <= x.size(0)) {
    auto y_rows = y.narrow(0, begin, n_rounded);
    at::mm_out(y_rows, x.narrow(0, begin, n_rounded), matrix);
    return;
  }
  y.narrow(0, begin, n_rows)
      .copy_(at::mm(zero_padded(x, begin, n_rows, n_rounded), matrix).narrow(0, 0, n_rows));
}

// Autograd's own formula for a slice would build one full-size gradient per expert; this one writes
// each expert's gradient into its block of a single tensor.
struct GroupedLinear : torch::autograd::Function<GroupedLinear> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            std::vector<int64_t> offsets,
                            int64_t axis_value) {
    const auto axis = static_cast<ExpertAxis>(axis_value);
    const auto n_experts = static_cast<int64_t>(offsets.size()) - 1;
    const int64_t width = weight.size(axis_dim(axis)) / n_experts;
    const int64_t out_features = axis == ExpertAxis::kRows ? width : weight.size(0);
    ctx->save_for_backward({x, weight});
    ctx->saved_data["offsets"] = offsets;
    ctx->saved_data["axis"] = axis_value;
    auto y = at::empty({x.size(0), out_features}, x.options());
    for (int64_t i = 0; i < n_experts; ++i) {
      const int64_t n_rows = offsets[i + 1] - offsets[i];
      if (n_rows == 0) continue;
      fill_rows(y, x, expert_block(weight, i, n_experts, axis).t(), offsets[i], n_rows);
    }
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto& weight = saved[1];
    const auto offsets = ctx->saved_data["offsets"].toIntVector();
    const auto axis = static_cast<ExpertAxis>(ctx->saved_data["axis"].toInt());
    const auto n_experts = static_cast<int64_t>(offsets.size()) - 1;
    const auto grad_y = grads[0].contiguous();
    auto grad_x = at::empty(x.sizes(), x.options());
    auto grad_weight = at::zeros_like(weight);
    for (int64_t i = 0; i < n_experts; ++i) {
      const int64_t n_rows = offsets[i + 1] - offsets[i];
      if (n_rows == 0) continue;
      fill_rows(grad_x, grad_y, expert_block(weight, i, n_experts, axis), offsets[i], n_rows);
      const int64_t n_rounded = rounded_rows(n_rows);
      const auto grad_rows = zero_padded(grad_y, offsets[i], n_rows, n_rounded);
      expert_block(grad_weight, i, n_experts, axis)
          .copy_(at::mm(grad_rows.t(), zero_padded(x, offsets[i], n_rows, n_rounded)));
    }
    return {grad_x, grad_weight, at::Tensor(), at::Tensor()};
  }
};

// The wide weight as [n_experts, in, out], without a copy.
at::Tensor expert_matrices(const at::Tensor& weight, int64_t n_experts, ExpertAxis axis) {
  return axis == ExpertAxis::kRows
             ? weight.view({n_experts, -1, weight.size(1)}).transpose(1, 2)
             : weight.view({weight.size(0), n_experts, -1}).permute({1, 2, 0});
}

struct GroupedLinearByEnds : torch::autograd::Function<GroupedLinearByEnds> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            const at::Tensor& ends,
                            int64_t axis_value) {
    ctx->save_for_backward({x, weight, ends});
    ctx->saved_data["axis"] = axis_value;
    const auto axis = static_cast<ExpertAxis>(axis_value);
    return at::_grouped_mm(x, expert_matrices(weight, ends.size(0), axis), ends);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto& weight = saved[1];
    const auto& ends = saved[2];
    const auto axis = static_cast<ExpertAxis>(ctx->saved_data["axis"].toInt());
    const auto grad_y = grads[0].contiguous();
    const auto matrices = expert_matrices(weight, ends.size(0), axis);
    const auto grad_x = at::_grouped_mm(grad_y, matrices.transpose(1, 2), ends);
    const auto by_expert = at::_grouped_mm(grad_y.t(), x, ends);  // [n_experts, out, in]
    const auto grad_weight =
        axis == ExpertAxis::kRows ? by_expert : by_expert.transpose(0, 1);  // to the wide layout
    return {grad_x, grad_weight.reshape(weight.sizes()), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor grouped_linear(const at::Tensor& x,
                          const at::Tensor& weight,
                          const std::vector<int64_t>& offsets,
                          ExpertAxis axis) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && offsets.size() >= 2,
              "grouped_linear: expected x [n_rows, in], a wide weight matrix and n_experts + 1 "
              "offsets, got x ",
              x.sizes(),
              ", weight ",
              weight.sizes(),
              ", ",
              offsets.size(),
              " offsets");
  TORCH_CHECK(x.scalar_type() == weight.scalar_type(),
              "grouped_linear: expected one dtype, got x ",
              x.scalar_type(),
              " and weight ",
              weight.scalar_type());
  const auto n_experts = static_cast<int64_t>(offsets.size()) - 1;
  const int64_t wide = weight.size(axis_dim(axis));
  TORCH_CHECK(wide % n_experts == 0,
              "grouped_linear: expected a wide dimension divisible by ",
              n_experts,
              " experts, got ",
              wide);
  const int64_t in_features = axis == ExpertAxis::kRows ? weight.size(1) : wide / n_experts;
  TORCH_CHECK(x.size(1) == in_features,
              "grouped_linear: expected x of width ",
              in_features,
              ", got ",
              x.size(1));
  TORCH_CHECK(offsets.front() == 0 && offsets.back() == x.size(0),
              "grouped_linear: expected offsets from 0 to ",
              x.size(0),
              ", got ",
              offsets.front(),
              " to ",
              offsets.back());
  for (int64_t i = 0; i < n_experts; ++i) {
    TORCH_CHECK(offsets[i] <= offsets[i + 1],
                "grouped_linear: expected ascending offsets, got ",
                offsets[i],
                " before ",
                offsets[i + 1]);
  }
  return GroupedLinear::apply(x, weight, offsets, static_cast<int64_t>(axis));
}

bool takes_ends(at::ScalarType type, int64_t in_features, int64_t out_features) {
  constexpr int64_t kBytes = 16;
  const auto size = static_cast<int64_t>(at::elementSize(type));
  return (type == at::kBFloat16 || type == at::kFloat) && in_features * size % kBytes == 0 &&
         out_features * size % kBytes == 0;
}

at::Tensor grouped_linear_by_ends(const at::Tensor& x,
                                  const at::Tensor& weight,
                                  const at::Tensor& ends,
                                  ExpertAxis axis) {
  TORCH_CHECK(ends.dim() == 1 && ends.size(0) > 0 && ends.scalar_type() == at::kInt &&
                  ends.is_contiguous() && x.dim() == 2 && x.is_contiguous() && weight.dim() == 2 &&
                  weight.is_contiguous() && weight.size(axis_dim(axis)) % ends.size(0) == 0,
              "grouped_linear_by_ends: expected contiguous x [n_rows, in], a wide weight and ends "
              "[n_experts] int32, got x ",
              x.sizes(),
              ", weight ",
              weight.sizes(),
              ", ends ",
              ends.sizes());
  const int64_t width = weight.size(axis_dim(axis)) / ends.size(0);
  const int64_t in_features = axis == ExpertAxis::kRows ? weight.size(1) : width;
  const int64_t out_features = axis == ExpertAxis::kRows ? width : weight.size(0);
  TORCH_CHECK(x.size(1) == in_features && x.scalar_type() == weight.scalar_type() &&
                  takes_ends(x.scalar_type(), in_features, out_features),
              "grouped_linear_by_ends: expected x of width ",
              in_features,
              ", a multiple of 16 bytes, of type ",
              weight.scalar_type(),
              ", got ",
              x.sizes(),
              " ",
              x.scalar_type());
  return GroupedLinearByEnds::apply(x, weight, ends, static_cast<int64_t>(axis));
}

}  // namespace dsmoe
