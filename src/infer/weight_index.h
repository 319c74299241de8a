#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "infer/adjusted_logits.h"

namespace dsmoe {

/// A token that may be drawn.
struct Candidate {
  int32_t id = 0;
  double weight = 0;  ///< exp((logit - greatest logit) / temperature)
};

/// Finds candidates by rank or by cumulative weight without sorting the vocabulary. The order is
/// greatest weight first, among equals lowest id first. A histogram of weights bounds the answer to
/// a few candidates; only these get exact weights and are sorted.
///
/// Sums by histogram and sums over sorted candidates round differently. Where the difference could
/// change an answer, none is returned and the caller sorts.
class WeightIndex {
 public:
  /// The first candidates and the sum of their weights.
  struct Prefix {
    Candidate last;
    double sum = 0;
  };

  /// logits outlive this; temperature is above 0.
  WeightIndex(const AdjustedLogits& logits, double temperature);

  /// The first n candidates, or all where there are fewer.
  std::vector<Candidate> first(size_t n) const;

  double total() const { return total_; }
  /// The shortest prefix of at least one candidate with a sum of at least `sum`.
  std::optional<Prefix> reach(double sum) const;
  /// The sum of all weights of at least `least`.
  std::optional<double> sum_down_to(double least) const;

 private:
  std::span<const uint16_t> buckets() const { return {buckets_.get(), logits_.size()}; }
  std::vector<Candidate> candidates_in(size_t first_bucket, size_t last_bucket) const;
  std::optional<std::vector<Candidate>> sorted_bucket(size_t bucket) const;

  const AdjustedLogits& logits_;
  double temperature_;
  std::unique_ptr<uint16_t[]> buckets_;  // [vocab_size]
  std::vector<double> sums_;             // of the weights of each bucket, greatest weights first
  double total_ = 0;
  double error_ = 0;  // by which a sum may differ from that over sorted candidates
};

}  // namespace dsmoe
