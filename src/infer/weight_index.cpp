#include "infer/weight_index.h"

#include <ATen/ops/exp.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace dsmoe {
namespace {

constexpr int kMantissaBits = std::numeric_limits<double>::digits - 1;
constexpr int kBucketBits = 6;   // of the mantissa: 64 buckets for each power of two
constexpr size_t kOctaves = 40;  // below 2^-40 of the greatest a weight is in the last bucket
constexpr size_t kBuckets = kOctaves << kBucketBits;

// Of a weight that the vectorized exponential computes from a rounded quotient.
constexpr double kWeightError = 1e-12;

// Greater weights are in lower buckets. Edges lie half a bucket beside the powers of two, where
// equal weights would crowd.
size_t bucket_of(double weight) {
  constexpr int kShift = kMantissaBits - kBucketBits;
  constexpr uint64_t kTop = std::bit_cast<uint64_t>(1.0) + (uint64_t{1} << (kShift - 1));
  return std::min<uint64_t>((kTop - std::bit_cast<uint64_t>(weight)) >> kShift, kBuckets - 1);
}

bool comes_before(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

// Calls use(i) for each i with values[i] in [first, last].
template <typename Use>
void for_each_within(const std::vector<uint16_t>& values,
                     size_t first,
                     size_t last,
                     const Use& use) {
  constexpr size_t kBlock = 32;  // compared at once
  const auto low = static_cast<uint16_t>(first);
  const auto width = static_cast<uint16_t>(last - first);
  const auto is_within = [&](size_t i) { return static_cast<uint16_t>(values[i] - low) <= width; };
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, values.size());
    if (end - begin == kBlock) {
      unsigned any = 0;
      for (size_t i = 0; i < kBlock; ++i) any |= is_within(begin + i) ? 1U : 0U;
      if (any == 0) continue;
    }
    for (size_t i = begin; i < end; ++i) {
      if (is_within(i)) use(i);
    }
  }
}

}  // namespace

WeightIndex::WeightIndex(const AdjustedLogits& logits, double temperature)
    : logits_(logits), temperature_(temperature), buckets_(logits.size()), sums_(kBuckets) {
  const double scale = 1.0 / temperature;
  logits.for_each_block([&](size_t begin, std::span<double> block) {
    for (double& value : block) value = (value - logits.greatest()) * scale;
    auto weights = at::from_blob(block.data(), {static_cast<int64_t>(block.size())}, at::kDouble);
    at::exp_(weights);
    for (size_t i = 0; i < block.size(); ++i) {
      const size_t bucket = bucket_of(block[i]);
      buckets_[begin + i] = static_cast<uint16_t>(bucket);
      sums_[bucket] += block[i];
    }
  });
  for (const double sum : sums_) total_ += sum;
  // A sum of n terms is off by at most n rounding steps.
  const auto n = static_cast<double>(logits.size() + kBuckets);
  error_ = 2 * total_ * (kWeightError + n * std::numeric_limits<double>::epsilon());
}

std::vector<Candidate> WeightIndex::first(size_t n) const {
  std::vector<size_t> counts(kBuckets);
  for (const uint16_t bucket : buckets_) ++counts[bucket];
  size_t last = 0;
  for (size_t found = counts[0]; found < n && last + 1 < kBuckets; found += counts[last]) ++last;
  // An exact weight may be one bucket beside.
  auto candidates = candidates_in(0, std::min(last + 1, kBuckets - 1));
  std::sort(candidates.begin(), candidates.end(), comes_before);
  candidates.resize(std::min(n, candidates.size()));
  return candidates;
}

std::optional<WeightIndex::Prefix> WeightIndex::reach(double sum) const {
  double before = 0;
  size_t bucket = 0;
  // A sum of 0 is reached by the first candidate.
  while (bucket < kBuckets && (before + sums_[bucket] < sum || sums_[bucket] == 0)) {
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
  const size_t bucket = bucket_of(least);
  const auto candidates = sorted_bucket(bucket);
  if (!candidates) return std::nullopt;
  double sum = 0;
  for (size_t i = 0; i < bucket; ++i) sum += sums_[i];
  for (const auto& candidate : *candidates) {
    if (candidate.weight >= least) sum += candidate.weight;
  }
  return sum;
}

// With their exact weights, in order of ids.
std::vector<Candidate> WeightIndex::candidates_in(size_t first_bucket, size_t last_bucket) const {
  std::vector<Candidate> candidates;
  for_each_within(buckets_, first_bucket, last_bucket, [&](size_t i) {
    const auto id = static_cast<int32_t>(i);
    const double logit = logits_.at(id);
    if (std::isinf(logit)) return;
    candidates.push_back({id, std::exp((logit - logits_.greatest()) / temperature_)});
  });
  return candidates;
}

// The candidates of one bucket, in order; none for the last bucket, and if an exact weight near by
// is in another bucket than that which its sum counts in.
std::optional<std::vector<Candidate>> WeightIndex::sorted_bucket(size_t bucket) const {
  if (bucket + 1 >= kBuckets) return std::nullopt;
  std::vector<Candidate> candidates;
  for (const auto& candidate : candidates_in(bucket == 0 ? 0 : bucket - 1, bucket + 1)) {
    const size_t exact = bucket_of(candidate.weight);
    if (exact != buckets_[static_cast<size_t>(candidate.id)]) return std::nullopt;
    if (exact == bucket) candidates.push_back(candidate);
  }
  std::sort(candidates.begin(), candidates.end(), comes_before);
  return candidates;
}

}  // namespace dsmoe
