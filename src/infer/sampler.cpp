#include "infer/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "common/error.h"
#include "common/random_seed.h"

namespace dsmoe {
namespace {

struct Candidate {
  int32_t id;
  double weight;  // proportional to its probability; the greatest is 1
};

void penalise_repeats(std::vector<double>& logits, std::span<const int32_t> seen, double penalty) {
  if (penalty == 1.0) return;
  for (const int32_t id : std::set<int32_t>(seen.begin(), seen.end())) {
    auto& logit = logits.at(static_cast<size_t>(id));
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

constexpr double kExcluded = -std::numeric_limits<double>::infinity();

void exclude_others(std::vector<double>& logits, const std::vector<bool>& sampled) {
  bool any = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool is_sampled = i < sampled.size() && sampled[i];
    any = any || is_sampled;
    if (!is_sampled) logits[i] = kExcluded;
  }
  if (!any) throw RunError("generate: expected a vocabulary with a token to draw, got none");
}

// Most probable first, lower id first among equals.
std::vector<Candidate> rank(const std::vector<double>& logits, double temperature) {
  const double greatest = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kExcluded) continue;
    candidates.push_back({static_cast<int32_t>(i), std::exp((logits[i] - greatest) / temperature)});
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.weight > b.weight;
  });
  return candidates;
}

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

Sampler::Sampler(const SamplingConfig& config,
                 int64_t sequence,
                 std::shared_ptr<const std::vector<bool>> sampled)
    : config_(config),
      sequence_seed_(derive_seed(config.seed, "sample", static_cast<uint64_t>(sequence))),
      sampled_(std::move(sampled)) {}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> seen) {
  std::vector<double> adjusted(logits.begin(), logits.end());
  if (!std::all_of(adjusted.begin(), adjusted.end(), [](double x) { return std::isfinite(x); })) {
    throw RunError("generate: expected finite logits, got a NaN or Inf");
  }
  if (sampled_ != nullptr) exclude_others(adjusted, *sampled_);
  penalise_repeats(adjusted, seen, config_.repetition_penalty);
  if (config_.temperature == 0.0) {
    return static_cast<int32_t>(std::max_element(adjusted.begin(), adjusted.end()) -
                                adjusted.begin());
  }
  auto candidates = rank(adjusted, config_.temperature);
  if (config_.top_k > 0 && static_cast<size_t>(config_.top_k) < candidates.size()) {
    candidates.resize(static_cast<size_t>(config_.top_k));
  }
  keep_top_p(candidates, config_.top_p);
  while (candidates.size() > 1 && candidates.back().weight < config_.min_p) candidates.pop_back();

  // 53 random bits: every double in [0, 1) of that grid is as likely as another.
  const uint64_t bits = mix_bits(sequence_seed_ + n_draws_++);
  double left = static_cast<double>(bits >> 11) * 0x1p-53 * total_weight(candidates);
  for (const auto& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;
}

}  // namespace dsmoe
