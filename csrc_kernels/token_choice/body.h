#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/token_choice/kernels.h"

/// choose_experts on a GPU: a warp per token, whose lanes count for their experts how many are
/// stronger, so that nothing is sorted.
namespace dsmoe::device {

constexpr int kChoiceLanes = 128;
constexpr int kChoiceTokens = kChoiceLanes / kWarpLanes;

inline LaunchShape choose_shape(const ChoiceRows& rows) {
  return {.n_blocks = rows.n_experts == 0 ? 0 : blocks_for(rows.n_tokens, kChoiceTokens),
          .n_lanes = kChoiceLanes,
          .shared_bytes = kChoiceTokens * rows.n_experts * static_cast<int64_t>(sizeof(float))};
}

inline LaunchShape count_above_shape(const ChoiceRows& rows) {
  const bool counts = rows.rule.selection == Selection::kThresholdTopK && rows.n_tokens > 0;
  return {.n_blocks = counts ? 1 : 0, .n_lanes = 1024};
}

DSMOE_HD inline bool above_threshold(float prob, const RoutingRule& rule) {
  return prob * static_cast<float>(rule.threshold_scale) > static_cast<float>(rule.epsilon);
}

// NaN is below everything.
DSMOE_HD inline float strength(float prob) { return prob == prob ? prob : -INFINITY; }

/// One block: how many numbers of all tokens are above the threshold.
template <typename Context>
DSMOE_HD void count_above_body(Context& ctx, const ChoiceRows& rows) {
  const int64_t n = rows.n_tokens * rows.n_experts;
  const int64_t count = ctx.block_reduce(
      [&](int lane) {
        int64_t own = 0;
        for (int64_t i = lane; i < n; i += ctx.n_lanes()) {
          if (above_threshold(rows.probs[i], rows.rule)) ++own;
        }
        return own;
      },
      Add());
  ctx.lanes([&](int lane) {
    if (lane == 0) *rows.above_count = count;
  });
}

/// How many experts a token takes at most, and how many are above the threshold.
struct ChoiceCounts {
  int64_t most;
  int64_t above;
};

DSMOE_HD inline ChoiceCounts choice_counts(const ChoiceRows& rows, const float* probs) {
  const auto& rule = rows.rule;
  const int64_t n = rows.n_experts;
  if (rule.selection == Selection::kTopK) return {rule.k, n};
  if (rule.selection == Selection::kThresholdTopK) {
    const auto mean = static_cast<double>(*rows.above_count) / static_cast<double>(rows.n_tokens);
    const int64_t k = std::llround(mean);
    return {k < 1 ? 1 : k < n ? k : n, n};
  }
  if (rule.selection == Selection::kAll) return {n, n};
  int64_t above = 0;
  for (int64_t j = 0; j < n; ++j) above += above_threshold(probs[j], rule) ? 1 : 0;
  return {rule.max_experts > 0 && rule.max_experts < n ? rule.max_experts : n, above};
}

DSMOE_HD inline bool is_chosen(const RoutingRule& rule,
                               const ChoiceCounts& counts,
                               float prob,
                               int64_t rank) {
  if (rule.selection != Selection::kThreshold) return rank < counts.most;
  // What is above the threshold is stronger than what is not.
  if (counts.above == 0) {
    return rule.zero_active == ZeroActive::kAll ||
           (rule.zero_active == ZeroActive::kArgmax && rank == 0);
  }
  return above_threshold(prob, rule) && rank < counts.most;
}

template <typename Context>
DSMOE_HD void choose_body(Context& ctx, const ChoiceRows& rows) {
  const int64_t n = rows.n_experts;
  float* chosen = ctx.template shared<float>();  // [kChoiceTokens, E]: the probability, or -1
  const int64_t first = ctx.block() * kChoiceTokens;
  ctx.lanes([&](int lane) {
    const int64_t token = first + lane / kWarpLanes;
    if (token >= rows.n_tokens) return;
    const float* probs = rows.probs + token * n;
    const auto counts = choice_counts(rows, probs);
    for (int64_t e = lane % kWarpLanes; e < n; e += kWarpLanes) {
      const float own = strength(probs[e]);
      int64_t rank = 0;
      for (int64_t j = 0; j < n; ++j) {
        const float other = strength(probs[j]);
        rank += other > own || (other == own && j < e) ? 1 : 0;
      }
      const bool is = is_chosen(rows.rule, counts, probs[e], rank);
      rows.selected[token * n + e] = is;
      chosen[lane / kWarpLanes * n + e] = is ? probs[e] : -1.0F;
    }
  });
  ctx.sync();
  ctx.lanes([&](int lane) {
    const int64_t token = first + lane / kWarpLanes;
    if (token >= rows.n_tokens) return;
    const float* own = chosen + lane / kWarpLanes * n;
    float sum = 0;
    int64_t count = 0;
    for (int64_t j = 0; j < n; ++j) {
      const bool is = !(own[j] < 0);
      sum += is ? own[j] : 0.0F;
      count += is ? 1 : 0;
    }
    float factor = 1;
    if (rows.rule.renormalise) factor = 1.0F / (sum > 1e-20F ? sum : 1e-20F);
    if (rows.rule.count_scale) {
      factor *= static_cast<float>(n) / static_cast<float>(count > 1 ? count : 1);
    }
    for (int64_t e = lane % kWarpLanes; e < n; e += kWarpLanes) {
      rows.weights[token * n + e] = own[e] < 0 ? 0.0F : own[e] * factor;
    }
  });
}

}  // namespace dsmoe::device
