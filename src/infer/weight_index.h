#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "infer/adjusted_logits.h"

namespace dsmoe {

/// A token that may be drawn.
struct Candidate {
  int32_t id = 0;
  double weight = 0;  ///< exp((logit - greatest logit) / temperature)
};

/// The candidates in order, greatest weight first and among equals the lowest id, without sorting
/// them: a histogram of weights finds the few candidates that a question is about, and only these
/// are sorted.
///
/// A sum over sorted candidates rounds otherwise than one by histogram. Answers hold for both:
/// where rounding could change one there is none, and the caller sorts.
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
  /// The shortest prefix of at least one candidate whose sum reaches `sum`.
  std::optional<Prefix> reach(double sum) const;
  /// The sum of all weights of at least `least`.
  std::optional<double> sum_down_to(double least) const;

 private:
  std::vector<Candidate> candidates_in(size_t first_bucket, size_t last_bucket) const;
  std::optional<std::vector<Candidate>> sorted_bucket(size_t bucket) const;

  const AdjustedLogits& logits_;
  double temperature_;
  std::vector<uint16_t> buckets_;  // [vocab_size]
  std::vector<double> sums_;       // of the weights of each bucket, greatest weights first
  double total_ = 0;
  double error_ = 0;  // by which a sum may differ from that over sorted candidates
};

}  // namespace dsmoe
