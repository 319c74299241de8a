#include "csrc_kernels/token_choice/token_choice.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
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

// Sorted by expert, then by token.
ExpertPairs list_pairs(std::span<const float> probs,
                       std::span<const bool> selected,
                       std::span<const float> factors,
                       bool list_all) {
  const size_t n_tokens = factors.size();
  const size_t n_experts = n_tokens == 0 ? 0 : probs.size() / n_tokens;
  ExpertPairs pairs;
  const auto n_rows = list_all ? static_cast<int64_t>(probs.size())
                               : std::count(selected.begin(), selected.end(), true);
  pairs.token_of_row = at::empty({n_rows}, at::kLong);
  pairs.weight_of_row = at::empty({n_rows}, at::kFloat);
  auto* tokens = pairs.token_of_row.data_ptr<int64_t>();
  auto* weights = pairs.weight_of_row.data_ptr<float>();
  pairs.offsets.assign(1, 0);
  int64_t row = 0;
  for (size_t e = 0; e < n_experts; ++e) {
    for (size_t t = 0; t < n_tokens; ++t) {
      const size_t at = t * n_experts + e;
      if (!selected[at] && !list_all) continue;
      tokens[row] = static_cast<int64_t>(t);
      weights[row] = selected[at] ? probs[at] * factors[t] : 0.0F;
      ++row;
    }
    pairs.offsets.push_back(row);
  }
  return pairs;
}

void check(const at::Tensor& probs, const RoutingRule& rule) {
  TORCH_CHECK(probs.dim() == 2 && probs.scalar_type() == at::kFloat && probs.is_contiguous() &&
                  probs.size(1) > 0,
              "choose_experts: expected probs [n_tokens, n_experts] float32, contiguous, got ",
              probs.sizes());
  const int64_t n_experts = probs.size(1);
  TORCH_CHECK(rule.selection != Selection::kTopK || (rule.k >= 1 && rule.k <= n_experts),
              "choose_experts: top_k = ",
              rule.k,
              " is outside [1, n_experts = ",
              n_experts,
              "]");
}

}  // namespace

ExpertChoice choose_experts(const at::Tensor& probs, const RoutingRule& rule, bool list_all) {
  check(probs, rule);
  const int64_t n_experts = probs.size(1);
  const auto n_tokens = static_cast<size_t>(probs.size(0));
  const auto width = static_cast<size_t>(n_experts);
  ExpertChoice choice;
  choice.selected = at::empty(probs.sizes(), at::kBool);
  const std::span numbers(probs.const_data_ptr<float>(), n_tokens * width);
  const std::span marks(choice.selected.data_ptr<bool>(), n_tokens * width);
  const int64_t k = rule.selection == Selection::kTopK ? rule.k
                    : rule.selection == Selection::kThresholdTopK
                        ? mean_count(numbers, n_experts, rule)
                        : n_experts;
  std::vector<float> factors;
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
    factors.push_back(weight_factor(token, rule));
  }
  choice.pairs = list_pairs(numbers, marks, factors, list_all);
  if (n_tokens == 0) choice.pairs.offsets.assign(width + 1, 0);
  return choice;
}

bool has_choice_kernel(const at::Tensor& probs) {
  return !probs.is_cpu() && device_kernels<TokenChoiceKernels>().choose != nullptr &&
         probs.scalar_type() == at::kFloat && probs.size(1) <= kMostChoiceExperts;
}

ChosenWeights choose_weights(const at::Tensor& probs, const RoutingRule& rule) {
  check(probs, rule);
  ChosenWeights chosen{at::empty(probs.sizes(), probs.options().dtype(at::kBool)),
                       at::empty_like(probs)};
  if (!has_choice_kernel(probs)) {
    const auto choice = choose_experts(probs.cpu(), rule);
    chosen.selected.copy_(choice.selected);
    auto weights = at::zeros({probs.numel()}, at::kFloat);
    auto* to = weights.data_ptr<float>();
    const auto* tokens = choice.pairs.token_of_row.const_data_ptr<int64_t>();
    const auto* from = choice.pairs.weight_of_row.const_data_ptr<float>();
    for (int64_t e = 0; e < probs.size(1); ++e) {
      for (int64_t r = choice.pairs.offsets[e]; r < choice.pairs.offsets[e + 1]; ++r) {
        to[tokens[r] * probs.size(1) + e] = from[r];
      }
    }
    chosen.weights.copy_(weights.view(probs.sizes()));
    return chosen;
  }
  const bool counts = rule.selection == Selection::kThresholdTopK;
  const auto above = counts ? at::zeros({1}, probs.options().dtype(at::kLong)) : at::Tensor();
  device_kernels<TokenChoiceKernels>().choose({.n_tokens = probs.size(0),
                                               .n_experts = probs.size(1),
                                               .probs = pointer<const float>(probs),
                                               .rule = rule,
                                               .above_count = pointer<int64_t>(above),
                                               .selected = pointer<bool>(chosen.selected),
                                               .weights = pointer<float>(chosen.weights)});
  return chosen;
}

}  // namespace dsmoe
