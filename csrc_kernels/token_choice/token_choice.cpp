#include "csrc_kernels/token_choice/token_choice.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

// One token's numbers and marks.
struct Token {
  std::span<const float> probs;
  std::span<bool> selected;

  int64_t count() const { return std::count(selected.begin(), selected.end(), true); }
};

// NaN is below everything.
bool is_stronger(float a, float b) { return a > b || (std::isnan(b) && !std::isnan(a)); }

// Marks the k strongest, the first among equals.
void mark_strongest(const Token& token, int64_t k) {
  std::fill(token.selected.begin(), token.selected.end(), false);
  for (int64_t n = 0; n < k; ++n) {
    size_t best = token.probs.size();
    for (size_t e = 0; e < token.probs.size(); ++e) {
      if (token.selected[e]) continue;
      if (best == token.probs.size() || is_stronger(token.probs[e], token.probs[best])) {
        best = e;
      }
    }
    token.selected[best] = true;
  }
}

bool above_threshold(float prob, const RoutingRule& rule) {
  return prob * static_cast<float>(rule.threshold_scale) > static_cast<float>(rule.epsilon);
}

void mark_above_threshold(const Token& token, const RoutingRule& rule) {
  const auto n_experts = static_cast<int64_t>(token.probs.size());
  const bool capped = rule.max_experts > 0 && rule.max_experts < n_experts;
  if (capped) {
    mark_strongest(token, rule.max_experts);
  } else {
    std::fill(token.selected.begin(), token.selected.end(), true);
  }
  for (size_t e = 0; e < token.probs.size(); ++e) {
    token.selected[e] = token.selected[e] && above_threshold(token.probs[e], rule);
  }
}

void mark_if_empty(const Token& token, ZeroActive rule) {
  if (rule == ZeroActive::kZero || token.count() > 0) return;
  if (rule == ZeroActive::kArgmax) return mark_strongest(token, 1);
  std::fill(token.selected.begin(), token.selected.end(), true);
}

// k of kThresholdTopK.
int64_t mean_count(std::span<const float> probs, int64_t n_experts, const RoutingRule& rule) {
  const auto n_above = std::count_if(
      probs.begin(), probs.end(), [&](float prob) { return above_threshold(prob, rule); });
  const auto n_tokens =
      static_cast<double>(std::max<size_t>(probs.size(), 1)) / static_cast<double>(n_experts);
  const auto k = std::llround(static_cast<double>(n_above) / std::max(n_tokens, 1.0));
  return std::clamp<int64_t>(k, 1, n_experts);
}

// What a token's weights are multiplied by.
float weight_factor(const Token& token, const RoutingRule& rule) {
  float factor = 1.0F;
  if (rule.renormalise) {
    float sum = 0.0F;
    for (size_t e = 0; e < token.probs.size(); ++e) {
      if (token.selected[e]) sum += token.probs[e];
    }
    factor = 1.0F / std::max(sum, 1e-20F);
  }
  if (rule.count_scale) {
    const auto n_chosen = static_cast<float>(std::max<int64_t>(token.count(), 1));
    factor *= static_cast<float>(token.probs.size()) / n_chosen;
  }
  return factor;
}

void check_choice(const at::Tensor& probs, const RoutingRule& rule) {
  TORCH_CHECK(probs.dim() == 2 && probs.size(1) > 0,
              "choose_experts: expected router_probs [n_tokens, n_experts], got ",
              probs.sizes());
  const int64_t n_experts = probs.size(1);
  TORCH_CHECK(rule.selection != Selection::kTopK || (rule.k >= 1 && rule.k <= n_experts),
              "choose_experts: top_k = ",
              rule.k,
              " is outside [1, n_experts = ",
              n_experts,
              "]");
}

void choose_on_cpu(const at::Tensor& probs, const RoutingRule& rule, TokenChoice& choice) {
  const int64_t n_experts = probs.size(1);
  const auto n_tokens = static_cast<size_t>(probs.size(0));
  const auto width = static_cast<size_t>(n_experts);
  const std::span numbers(probs.const_data_ptr<float>(), n_tokens * width);
  const std::span marks(choice.selected.data_ptr<bool>(), n_tokens * width);
  auto* weights = choice.expert_weights.data_ptr<float>();
  const int64_t k = rule.selection == Selection::kTopK ? rule.k
                    : rule.selection == Selection::kThresholdTopK
                        ? mean_count(numbers, n_experts, rule)
                        : n_experts;
  for (size_t t = 0; t < n_tokens; ++t) {
    const Token token{numbers.subspan(t * width, width), marks.subspan(t * width, width)};
    if (rule.selection == Selection::kThreshold) {
      mark_above_threshold(token, rule);
    } else if (k == n_experts) {
      std::fill(token.selected.begin(), token.selected.end(), true);
    } else {
      mark_strongest(token, k);
    }
    mark_if_empty(token, rule.zero_active);
    const float factor = weight_factor(token, rule);
    for (size_t e = 0; e < width; ++e) {
      weights[t * width + e] = token.selected[e] ? token.probs[e] * factor : 0.0F;
    }
  }
}

void choose_on_device(const at::Tensor& probs, const RoutingRule& rule, TokenChoice& choice) {
  const bool counts = rule.selection == Selection::kThresholdTopK;
  const auto above = counts ? at::zeros({1}, probs.options().dtype(at::kLong)) : at::Tensor();
  device_kernels<TokenChoiceKernels>().choose({.n_tokens = probs.size(0),
                                               .n_experts = probs.size(1),
                                               .probs = pointer<const float>(probs),
                                               .rule = rule,
                                               .above_count = pointer<int64_t>(above),
                                               .selected = pointer<bool>(choice.selected),
                                               .weights = pointer<float>(choice.expert_weights)});
}

bool has_choice_kernel(const at::Tensor& probs, bool packed) {
  if (probs.is_cpu()) return packed;
  return device_kernels<TokenChoiceKernels>().choose != nullptr && !at::GradMode::is_enabled() &&
         probs.scalar_type() == at::kFloat && probs.size(1) <= kMostChoiceExperts;
}

}  // namespace

TokenChoice choose_experts(const at::Tensor& router_probs, const RoutingRule& rule, bool packed) {
  check_choice(router_probs, rule);
  const auto marks = router_probs.options().dtype(at::kBool).requires_grad(false);
  if (rule.selection == Selection::kAll && !rule.renormalise && !rule.count_scale) {
    return {at::ones_like(router_probs, marks), router_probs};
  }
  if (!has_choice_kernel(router_probs, packed)) return choose_experts_ref(router_probs, rule);
  TORCH_CHECK(router_probs.scalar_type() == at::kFloat && router_probs.is_contiguous(),
              "choose_experts: expected router_probs of float32, contiguous, got ",
              router_probs.scalar_type(),
              " ",
              router_probs.sizes());
  TokenChoice choice{
      at::empty(router_probs.sizes(), marks), at::empty_like(router_probs), most_selected(rule)};
  (router_probs.is_cpu() ? choose_on_cpu : choose_on_device)(router_probs, rule, choice);
  return choice;
}

bool choice_needs_host_sync(const RoutingRule& rule) {
  return rule.selection == Selection::kThresholdTopK &&
         device_kernels<TokenChoiceKernels>().choose == nullptr;
}

}  // namespace dsmoe
