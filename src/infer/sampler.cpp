#include "infer/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/random_seed.h"
#include "infer/weight_index.h"

namespace dsmoe {
namespace {

double total_weight(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0, [](double sum, const auto& c) {
    return sum + c.weight;
  });
}

void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  if (top_p >= 1.0) return;
  const double wanted = top_p * total_weight(candidates);
  double sum = 0;
  size_t n = 0;
  while (n < candidates.size() && (n == 0 || sum < wanted)) sum += candidates[n++].weight;
  candidates.resize(n);
}

// The token at `share` of the weights that top_p and min_p keep; none where only sorting decides.
std::optional<int32_t> find_by_weight(const WeightIndex& index,
                                      const SamplingConfig& config,
                                      double share) {
  double kept = index.total();
  double least = 0;  // weight kept
  if (config.top_p < 1.0) {
    const auto prefix = index.reach(config.top_p * index.total());
    if (!prefix) return std::nullopt;
    kept = prefix->sum;
    least = prefix->last.weight;
  }
  if (config.min_p > least) {
    const auto sum = index.sum_down_to(config.min_p);
    if (!sum) return std::nullopt;
    kept = *sum;
  }
  const auto drawn = index.reach(share * kept);
  return drawn ? std::optional(drawn->last.id) : std::nullopt;
}

int32_t find_by_rank(std::vector<Candidate> candidates,
                     const SamplingConfig& config,
                     double share) {
  keep_top_p(candidates, config.top_p);
  while (candidates.size() > 1 && candidates.back().weight < config.min_p) candidates.pop_back();
  double left = share * total_weight(candidates);
  for (const auto& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;
}

}  // namespace

void SamplingConfig::validate() const {
  const auto check = [](const char* name, double value, double min, double max) {
    if (!(value >= min && value <= max)) {
      throw Error(fmt::format("--{}: expected a value in [{}, {}], got {}", name, min, max, value));
    }
  };
  check("temperature", temperature, 0.0, 1e6);
  check("top-k", static_cast<double>(top_k), 0.0, 1e9);
  check("top-p", top_p, 0.0, 1.0);
  check("min-p", min_p, 0.0, 1.0);
  check("repetition-penalty", repetition_penalty, 1e-3, 1e3);
}

Sampler::Sampler(const SamplingConfig& config, int64_t sequence, ExcludedIds excluded)
    : config_(config),
      sequence_seed_(derive_seed(config.seed, "sample", static_cast<uint64_t>(sequence))),
      excluded_(std::move(excluded)) {}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> seen) {
  const AdjustedLogits adjusted(logits, excluded_, seen, config_.repetition_penalty);
  if (config_.temperature == 0.0) return adjusted.first_greatest();
  // 53 random bits: every double in [0, 1) of that grid is as likely as another.
  const uint64_t bits = mix_bits(sequence_seed_ + n_draws_++);
  const double share = static_cast<double>(bits >> 11) * 0x1p-53;
  const WeightIndex index(adjusted, config_.temperature);
  if (config_.top_k == 0) {
    if (const auto id = find_by_weight(index, config_, share)) return *id;
  }
  const auto n = config_.top_k > 0 ? static_cast<size_t>(config_.top_k) : logits.size();
  return find_by_rank(index.first(n), config_, share);
}

}  // namespace dsmoe
