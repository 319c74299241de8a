#include "csrc_kernels/rotary/rotary.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/rotary/kernels.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kRotate = "rotary";

at::Tensor rotate(const at::Tensor& x,
                  const at::Tensor& cos,
                  const at::Tensor& sin,
                  int direction) {
  auto y = at::empty_like(x);
  dispatch_float_types(kRotate, x.scalar_type(), [&]<typename T, typename W>() {
    const RotaryRows<T, W> rows{.n_rows = x.size(0),
                                .n_heads = x.size(1),
                                .half = cos.size(1),
                                .n_table_rows = cos.size(0),
                                .x = pointer<const T>(x),
                                .cos = pointer<const W>(cos),
                                .sin = pointer<const W>(sin),
                                .y = pointer<T>(y)};
    kernels_for<RotaryKernels<T, W>>(x.is_cpu()).rotate(rows, static_cast<W>(direction));
  });
  return y;
}

struct Rotary : torch::autograd::Function<Rotary> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& cos,
                            const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotate(x, cos, sin, 1);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotate(grads[0].contiguous(), saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  TORCH_CHECK(x.dim() == 3 && x.is_contiguous() && x.size(2) % 2 == 0,
              kRotate,
              ": expected x [n_rows, n_heads, head_dim], contiguous, head_dim even, got ",
              x.sizes());
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  for (const auto* table : {&cos, &sin}) {
    TORCH_CHECK(table->dim() == 2 && table->is_contiguous() && table->size(1) == x.size(2) / 2 &&
                    (x.size(0) == 0 || (table->size(0) > 0 && x.size(0) % table->size(0) == 0)) &&
                    table->scalar_type() == wide,
                kRotate,
                ": expected tables [a divisor of ",
                x.size(0),
                ", ",
                x.size(2) / 2,
                "], contiguous, of type ",
                wide,
                ", got ",
                table->sizes(),
                " ",
                table->scalar_type());
  }
  TORCH_CHECK(cos.size(0) == sin.size(0), kRotate, ": expected tables of one size");
  if (!x.is_cpu() && device_kernels<RotaryKernels<float, float>>().rotate == nullptr) {
    return rotary_ref(x, cos, sin);
  }
  return Rotary::apply(x, cos, sin);
}

}  // namespace dsmoe
