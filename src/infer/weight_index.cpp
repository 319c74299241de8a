#include "infer/weight_index.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "csrc_kernels/sampling_weights/kernels.h"

namespace dsmoe {
namespace {

constexpr size_t kNeglected = kWeightBuckets - 1;  // its weights add up to less than rounding does

// Relative error of a weight by its bucket and factor.
constexpr double kWeightError = 1e-12;

const std::array<double, kWeightBuckets>& bucket_weights() {
  static const auto weights = [] {
    std::array<double, kWeightBuckets> result{};
    for (size_t b = 0; b < kNeglected; ++b) {
      result[b] = std::exp2(-static_cast<double>(b) / kBucketsPerOctave);
    }
    return result;
  }();
  return weights;
}

// `place` counts buckets, from 0 for the greatest weight.
size_t bucket_at(double place) {
  return static_cast<size_t>(std::min(std::nearbyint(place), static_cast<double>(kNeglected)));
}

// Adds in several chains, because one would wait for the addition before.
double sum_of(std::span<const double> values) {
  const double* begin = values.data();
  const size_t n = values.size();
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < n; ++i) sum += begin[i];
  return sum;
}

bool comes_before(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

constexpr size_t kCompared = 64;  // values at once

// Returns true if one of kCompared values is in [low, low + width].
bool has_within(const uint16_t* values, uint16_t low, uint16_t width) {
  uint16_t n = 0;
  for (size_t i = 0; i < kCompared; ++i) {
    n += static_cast<uint16_t>(static_cast<uint16_t>(values[i] - low) <= width ? 1 : 0);
  }
  return n > 0;
}

// Calls use(i) for each i with values[i] in [first, last].
template <typename Use>
void for_each_within(std::span<const uint16_t> values, size_t first, size_t last, const Use& use) {
  const auto low = static_cast<uint16_t>(first);
  const auto width = static_cast<uint16_t>(last - first);
  for (size_t begin = 0; begin < values.size(); begin += kCompared) {
    const size_t end = std::min(begin + kCompared, values.size());
    if (end - begin == kCompared && !has_within(&values[begin], low, width)) continue;
    for (size_t i = begin; i < end; ++i) {
      if (static_cast<uint16_t>(values[i] - low) <= width) use(i);
    }
  }
}

}  // namespace

WeightIndex::WeightIndex(const AdjustedLogits& logits, double temperature)
    : logits_(logits),
      temperature_(temperature),
      buckets_(std::make_unique_for_overwrite<uint16_t[]>(logits.size())),
      sums_(kWeightBuckets) {
  // Below that temperature the greatest logit alone has a weight above 0.
  constexpr double kLeastTemperature = 1e-290;
  const double scale =
      kBucketsPerOctave / (std::numbers::ln2 * std::max(temperature, kLeastTemperature));
  const auto& kernels = cpu_kernels<SamplingWeightKernels>();
  std::array<double, AdjustedLogits::kBlock> factors;
  logits.for_each_block([&](size_t begin, std::span<const float> block) {
    auto* buckets = buckets_.get() + begin;
    kernels.split(block.data(), block.size(), logits.greatest(), scale, buckets, factors.data());
    for (size_t i = 0; i < block.size(); ++i) sums_[buckets[i]] += factors[i];
  });
  for (const auto& change : logits.changes()) {
    const double place = (logits.greatest() - change.logit) * scale;
    const size_t bucket = bucket_at(place);
    buckets_[static_cast<size_t>(change.id)] = static_cast<uint16_t>(bucket);
    sums_[bucket] += std::exp2((static_cast<double>(bucket) - place) / kBucketsPerOctave);
  }
  const auto& weights = bucket_weights();
  for (size_t b = 0; b < kWeightBuckets; ++b) sums_[b] *= weights[b];
  total_ = sum_of(sums_);
  // A sum of n terms is off by at most n rounding steps.
  const auto n = static_cast<double>(logits.size() + kWeightBuckets);
  error_ = 2 * total_ * (kWeightError + n * std::numeric_limits<double>::epsilon());
}

std::vector<Candidate> WeightIndex::first(size_t n) const {
  std::vector<size_t> counts(kWeightBuckets);
  for (const uint16_t bucket : buckets()) ++counts[bucket];
  size_t last = 0;
  for (size_t found = counts[0]; found < n && last + 1 < kWeightBuckets; found += counts[last])
    ++last;
  // Rounding may have moved a weight by one bucket.
  auto candidates = candidates_in(0, std::min(last + 1, kWeightBuckets - 1));
  std::sort(candidates.begin(), candidates.end(), comes_before);
  candidates.resize(std::min(n, candidates.size()));
  return candidates;
}

std::optional<WeightIndex::Prefix> WeightIndex::reach(double sum) const {
  double before = 0;
  size_t bucket = 0;
  // A sum of 0 is reached by the first candidate.
  while (bucket < kWeightBuckets && (before + sums_[bucket] < sum || sums_[bucket] == 0)) {
    before += sums_[bucket++];
  }
  const auto candidates = sorted_bucket(bucket);
  if (!candidates) return std::nullopt;
  for (const auto& candidate : *candidates) {
    const double after = before + candidate.weight;
    if (after >= sum) {
      const bool is_certain = after - sum > error_ && (before == 0 || sum - before > error_);
      return is_certain ? std::optional(Prefix{candidate, after}) : std::nullopt;
    }
    before = after;
  }
  return std::nullopt;
}

std::optional<double> WeightIndex::sum_down_to(double least) const {
  const size_t bucket = bucket_at(-std::log2(least) * kBucketsPerOctave);
  if (bucket + 1 >= kNeglected) return std::nullopt;
  const size_t first = bucket == 0 ? 0 : bucket - 1;
  double sum = 0;
  for (size_t b = 0; b < first; ++b) sum += sums_[b];
  for (const auto& candidate : candidates_in(first, bucket + 1)) {
    if (candidate.weight >= least) sum += candidate.weight;
  }
  return sum;
}

// With their exact weights, in order of ids.
std::vector<Candidate> WeightIndex::candidates_in(size_t first_bucket, size_t last_bucket) const {
  std::vector<Candidate> candidates;
  for_each_within(buckets(), first_bucket, last_bucket, [&](size_t i) {
    const auto id = static_cast<int32_t>(i);
    const double logit = logits_.at(id);
    if (std::isinf(logit)) return;
    candidates.push_back({id, std::exp((logit - logits_.greatest()) / temperature_)});
  });
  return candidates;
}

// The candidates of one bucket, in order; none for the neglected ones, and where exact weights of
// the buckets beside it are not all greater or all less.
std::optional<std::vector<Candidate>> WeightIndex::sorted_bucket(size_t bucket) const {
  if (bucket + 1 >= kNeglected) return std::nullopt;
  std::vector<Candidate> candidates;
  double least_before = std::numeric_limits<double>::infinity();
  double greatest_after = -1;
  for (const auto& candidate : candidates_in(bucket == 0 ? 0 : bucket - 1, bucket + 1)) {
    const size_t found = buckets()[static_cast<size_t>(candidate.id)];
    if (found < bucket) least_before = std::min(least_before, candidate.weight);
    if (found > bucket) greatest_after = std::max(greatest_after, candidate.weight);
    if (found == bucket) candidates.push_back(candidate);
  }
  std::sort(candidates.begin(), candidates.end(), comes_before);
  const bool is_apart = !candidates.empty() && least_before > candidates.front().weight &&
                        candidates.back().weight > greatest_after;
  return is_apart ? std::optional(std::move(candidates)) : std::nullopt;
}

}  // namespace dsmoe
