#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "common/random_seed.h"
#include "infer/sampler.h"

namespace dsmoe {

/// Reference implementation of Sampler: sorts the whole vocabulary for each draw.
class SortingSampler {
 public:
  SortingSampler(const SamplingConfig& config, int64_t sequence, ExcludedIds excluded = nullptr)
      : config_(config),
        seed_(derive_seed(config.seed, "sample", static_cast<uint64_t>(sequence))),
        excluded_(std::move(excluded)) {}

  int32_t sample(std::span<const float> logits, std::span<const int32_t> seen) {
    auto candidates = sorted(logits, seen);
    const auto total = [&] {
      double sum = 0;
      for (const auto& candidate : candidates) sum += candidate.weight;
      return sum;
    };
    if (config_.top_k > 0 && static_cast<size_t>(config_.top_k) < candidates.size()) {
      candidates.resize(static_cast<size_t>(config_.top_k));
    }
    if (config_.top_p < 1.0) {
      const double wanted = config_.top_p * total();
      double sum = 0;
      size_t n = 0;
      while (n < candidates.size() && (n == 0 || sum < wanted)) sum += candidates[n++].weight;
      candidates.resize(n);
    }
    while (candidates.size() > 1 && candidates.back().weight < config_.min_p) candidates.pop_back();
    const uint64_t bits = mix_bits(seed_ + n_draws_++);
    double left = static_cast<double>(bits >> 11) * 0x1p-53 * total();
    for (const auto& candidate : candidates) {
      left -= candidate.weight;
      if (left < 0) return candidate.id;
    }
    return candidates.back().id;
  }

 private:
  struct Weighted {
    int32_t id;
    double weight;
  };

  std::vector<Weighted> sorted(std::span<const float> logits, std::span<const int32_t> seen) const {
    std::vector<double> adjusted(logits.begin(), logits.end());
    if (excluded_ != nullptr) {
      for (const int32_t id : *excluded_) adjusted.at(static_cast<size_t>(id)) = -INFINITY;
    }
    for (const int32_t id : std::set<int32_t>(seen.begin(), seen.end())) {
      auto& logit = adjusted.at(static_cast<size_t>(id));
      logit = logit > 0 ? logit / config_.repetition_penalty : logit * config_.repetition_penalty;
    }
    const double greatest = *std::max_element(adjusted.begin(), adjusted.end());
    std::vector<Weighted> candidates;
    for (size_t i = 0; i < adjusted.size(); ++i) {
      if (adjusted[i] == -INFINITY) continue;
      const double weight = std::exp((adjusted[i] - greatest) / config_.temperature);
      candidates.push_back({static_cast<int32_t>(i), weight});
    }
    std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
      return a.weight > b.weight;
    });
    return candidates;
  }

  SamplingConfig config_;
  uint64_t seed_;
  ExcludedIds excluded_;
  uint64_t n_draws_ = 0;
};

}  // namespace dsmoe
