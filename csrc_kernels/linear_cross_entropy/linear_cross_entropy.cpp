#include "csrc_kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/linear_cross_entropy/kernels.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kName = "linear_cross_entropy";
constexpr int64_t kChunkElements = 4 << 20;          // logits in memory
constexpr int64_t kDeviceChunkElements = 256 << 20;  // on another device; its GEMMs need more rows
constexpr int64_t kMinChunkRows = 256;               // below, GEMMs are slow

// Returns the sum of the losses; replaces logits by their gradient unless grad_scale is 0.
at::Tensor losses_of(const at::Tensor& logits, const at::Tensor& targets, double grad_scale) {
  const auto losses = at::empty({logits.size(0)}, logits.options().dtype(at::kDouble));
  dispatch_float_types(kName, logits.scalar_type(), [&]<typename T, typename W>() {
    const CrossEntropyRows<T> rows{.n_rows = logits.size(0),
                                   .vocab_size = logits.size(1),
                                   .logits = pointer<T>(logits),
                                   .targets = pointer<const int64_t>(targets)};
    kernels_for<CrossEntropyKernels<T>>(logits.is_cpu())
        .run(rows, grad_scale, pointer<double>(losses));
  });
  return losses.sum();
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& features,
                            const at::Tensor& head_weight,
                            const at::Tensor& head_copy,
                            const at::Tensor& targets,
                            bool with_gradient) {
    const int64_t n_rows = features.size(0);
    const int64_t vocab_size = head_copy.size(0);
    const int64_t elements = features.is_cpu() ? kChunkElements : kDeviceChunkElements;
    const int64_t chunk = std::max(kMinChunkRows, elements / vocab_size);
    const double grad_scale = with_gradient ? 1.0 / static_cast<double>(n_rows) : 0.0;
    at::Tensor grad_features, grad_head;
    if (with_gradient) {
      grad_features = at::empty_like(features);
      grad_head = at::zeros(head_weight.sizes(), head_weight.options().requires_grad(false));
    }
    auto sum = at::zeros({}, features.options().dtype(at::kDouble).requires_grad(false));
    for (int64_t begin = 0; begin < n_rows; begin += chunk) {
      const int64_t n = std::min(chunk, n_rows - begin);
      const auto rows = features.narrow(0, begin, n);
      const auto logits = at::mm(rows, head_copy.t());  // [n, vocab_size]
      sum.add_(losses_of(logits, targets.narrow(0, begin, n), grad_scale));
      if (!with_gradient) continue;
      auto grad_rows = grad_features.narrow(0, begin, n);
      at::mm_out(grad_rows, logits, head_copy);
      grad_head.add_(at::mm(logits.t(), rows));
    }
    ctx->save_for_backward({grad_features, grad_head});
    const auto wide = features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return (sum / static_cast<double>(n_rows)).to(wide);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto scaled = [&](const at::Tensor& gradient) {
      // Reading the value would need a host sync.
      if (!gradient.is_cpu()) return gradient * grads[0].to(gradient.scalar_type());
      const double factor = grads[0].item<double>();
      return factor == 1.0 ? gradient : gradient * factor;
    };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& features,
                                const at::Tensor& head_weight,
                                const at::Tensor& head_copy,
                                const at::Tensor& targets) {
  TORCH_CHECK(features.dim() == 2 && head_copy.dim() == 2 && features.size(0) > 0 &&
                  features.size(1) == head_copy.size(1) &&
                  features.scalar_type() == head_copy.scalar_type() &&
                  head_weight.sizes() == head_copy.sizes(),
              kName,
              ": expected features [n_rows, d_model] and head_weight, head_copy "
              "[vocab_size, d_model], head_copy of the type of features, got ",
              features.sizes(),
              " and ",
              head_weight.sizes(),
              ", ",
              head_copy.sizes());
  TORCH_CHECK(targets.dim() == 1 && targets.size(0) == features.size(0) &&
                  targets.scalar_type() == at::kLong,
              kName,
              ": expected targets [",
              features.size(0),
              "] int64, got ",
              targets.sizes());
  if (targets.is_cpu()) {
    const auto [lowest, highest] = targets.aminmax();
    TORCH_CHECK(lowest.item<int64_t>() >= 0 && highest.item<int64_t>() < head_copy.size(0),
                kName,
                ": expected targets below vocab_size = ",
                head_copy.size(0),
                ", got ",
                lowest.item<int64_t>(),
                " to ",
                highest.item<int64_t>());
  }
  if (!features.is_cpu() && device_kernels<CrossEntropyKernels<float>>().run == nullptr)
    return linear_cross_entropy_ref(features, head_weight, targets);
  const bool with_gradient =
      at::GradMode::is_enabled() && (features.requires_grad() || head_weight.requires_grad());
  return LinearCrossEntropy::apply(
      features.contiguous(), head_weight, head_copy.detach(), targets.contiguous(), with_gradient);
}

}  // namespace dsmoe
