#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace dsmoe {

/// Ids that are never drawn.
using ExcludedIds = std::shared_ptr<const std::vector<int32_t>>;

/// The logits of one token after exclusion and repetition penalty, in double. Only what these
/// change is stored.
class AdjustedLogits {
 public:
  /// logits    [vocab_size], finite; outlives this
  /// excluded  ids with a logit of -inf, ascending; null: none
  /// seen      ids of which penalty divides a positive logit and multiplies a negative one
  /// Throws RunError if a logit is not finite, or if every id is excluded.
  AdjustedLogits(std::span<const float> logits,
                 const ExcludedIds& excluded,
                 std::span<const int32_t> seen,
                 double penalty);

  size_t size() const { return logits_.size(); }
  double greatest() const { return greatest_; }
  int32_t first_greatest() const { return first_greatest_; }  ///< its lowest id
  double at(int32_t id) const;
  /// Hands out all of them in order, in blocks that may be overwritten.
  void for_each_block(const std::function<void(size_t begin, std::span<double> block)>& use) const;

 private:
  struct Change {
    int32_t id;
    double logit;
  };
  static bool is_lower(const Change& a, const Change& b) { return a.id < b.id; }

  std::span<const float> logits_;
  std::vector<Change> changes_;  // by id
  double greatest_;
  int32_t first_greatest_ = -1;
};

}  // namespace dsmoe
