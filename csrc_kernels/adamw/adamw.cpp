#include "csrc_kernels/adamw/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "csrc_kernels/adamw/kernels.h"
#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

constexpr int64_t kPieceSize = 1 << 15;  // four arrays of it fit into L2

bool takes_reference(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kDouble;
}

// Another device than the CPU takes torch's kernels over lists of tensors: one call for all
// parameters of one step and weight decay.
void step_lists(const std::vector<AdamwSlot>& slots, const AdamwOptions& options) {
  struct Lists {
    std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  };
  const at::NoGradGuard no_grad;
  std::map<std::pair<int64_t, double>, Lists> groups;
  for (const auto& slot : slots) {
    auto& lists = groups[{slot.step, slot.weight_decay}];
    lists.parameters.push_back(slot.parameter);
    lists.gradients.push_back(slot.gradient);
    lists.exp_avgs.push_back(slot.exp_avg);
    lists.exp_avg_sqs.push_back(slot.exp_avg_sq);
  }
  const auto beside = slots.front().parameter.options().dtype(at::kFloat).requires_grad(false);
  // The kernel divides the gradients by this scale.
  const auto scale = options.gradient_scale == 1.0
                         ? std::optional<at::Tensor>()
                         : at::full({}, 1.0 / options.gradient_scale, beside);
  for (auto& [key, lists] : groups) {
    const auto [step, weight_decay] = key;
    lists.steps.assign(lists.parameters.size(), at::full({}, static_cast<double>(step), beside));
    at::_fused_adamw_(lists.parameters,
                      lists.gradients,
                      lists.exp_avgs,
                      lists.exp_avg_sqs,
                      /*max_exp_avg_sqs=*/{},
                      lists.steps,
                      options.lr,
                      options.beta1,
                      options.beta2,
                      weight_decay,
                      options.eps,
                      /*amsgrad=*/false,
                      /*maximize=*/false,
                      scale);
  }
}

double norm_of_lists(const std::vector<at::Tensor>& gradients) {
  const auto norms = at::stack(at::_foreach_norm(gradients, 2.0));
  return at::linalg_vector_norm(norms, 2.0, {}, false, at::kDouble).item<double>();
}

void check(const AdamwSlot& slot) {
  for (const auto* tensor : {&slot.parameter, &slot.gradient, &slot.exp_avg, &slot.exp_avg_sq}) {
    TORCH_CHECK(tensor->scalar_type() == at::kFloat && tensor->is_contiguous() &&
                    tensor->numel() == slot.parameter.numel(),
                "adamw: expected float32, contiguous, ",
                slot.parameter.numel(),
                " elements, got ",
                tensor->scalar_type(),
                " ",
                tensor->sizes());
  }
}

std::vector<AdamwPiece> pieces_of(const std::vector<AdamwSlot>& slots,
                                  const AdamwOptions& options) {
  std::vector<AdamwPiece> pieces;
  for (const auto& slot : slots) {
    check(slot);
    AdamwPiece piece{};
    const auto t = static_cast<double>(slot.step);
    piece.kept = static_cast<float>(1.0 - options.lr * slot.weight_decay);
    piece.step_size = static_cast<float>(options.lr / (1.0 - std::pow(options.beta1, t)));
    piece.root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, t)));
    for (int64_t begin = 0; begin < slot.parameter.numel(); begin += kPieceSize) {
      piece.n = std::min(kPieceSize, slot.parameter.numel() - begin);
      piece.parameter = pointer<float>(slot.parameter) + begin;
      piece.gradient = pointer<const float>(slot.gradient) + begin;
      piece.exp_avg = pointer<float>(slot.exp_avg) + begin;
      piece.exp_avg_sq = pointer<float>(slot.exp_avg_sq) + begin;
      pieces.push_back(piece);
    }
  }
  return pieces;
}

std::vector<GradientPiece> pieces_of(const std::vector<at::Tensor>& gradients) {
  std::vector<GradientPiece> pieces;
  for (const auto& gradient : gradients) {
    TORCH_CHECK(gradient.scalar_type() == at::kFloat && gradient.is_contiguous(),
                "gradient_norm: expected float32, contiguous, got ",
                gradient.scalar_type());
    for (int64_t begin = 0; begin < gradient.numel(); begin += kPieceSize) {
      pieces.push_back({.n = std::min(kPieceSize, gradient.numel() - begin),
                        .gradient = pointer<const float>(gradient) + begin});
    }
  }
  return pieces;
}

}  // namespace

double gradient_norm(const std::vector<at::Tensor>& gradients) {
  if (!gradients.empty() && takes_reference(gradients[0])) return gradient_norm_ref(gradients);
  if (!gradients.empty() && !gradients[0].is_cpu()) return norm_of_lists(gradients);
  const auto pieces = pieces_of(gradients);
  std::vector<double> sums(pieces.size());
  cpu_kernels<AdamwKernels>().squared_gradients(
      pieces.data(), static_cast<int64_t>(pieces.size()), sums.data());
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

void adamw_step(const std::vector<AdamwSlot>& slots, const AdamwOptions& options) {
  if (!slots.empty() && takes_reference(slots.front().parameter)) {
    adamw_step_ref(slots, options);
  } else if (!slots.empty() && !slots.front().parameter.is_cpu()) {
    step_lists(slots, options);
  } else {
    const auto pieces = pieces_of(slots, options);
    const AdamwRates rates{.beta1 = static_cast<float>(options.beta1),
                           .beta2 = static_cast<float>(options.beta2),
                           .eps = static_cast<float>(options.eps),
                           .gradient_scale = static_cast<float>(options.gradient_scale)};
    cpu_kernels<AdamwKernels>().step(pieces.data(), static_cast<int64_t>(pieces.size()), rates);
  }
  // Autograd does not see these writes: bump the version that copies of the weights compare.
  for (const auto& slot : slots) slot.parameter.unsafeGetTensorImpl()->bump_version();
}

}  // namespace dsmoe
