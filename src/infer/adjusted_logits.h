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
  /// excluded  ids with a logit of -inf, strictly ascending; null: none
  /// seen      ids of which penalty divides a positive logit and multiplies a negative one
  /// Throws RunError if a logit is not finite, or if every id is excluded.
  AdjustedLogits(std::span<const float> logits,
                 const ExcludedIds& excluded,
                 std::span<const int32_t> seen,
                 double penalty);

  size_t size() const { return logits_.size(); }
  double greatest() const { return greatest_; }
  int32_t first_greatest() const;  ///< its lowest id
  double at(int32_t id) const;
  /// A logit that exclusion or penalty changed; -inf if the id is excluded.
  struct Change {
    int32_t id;
    double logit;
  };
  const std::vector<Change>& changes() const { return changes_; }  ///< by id
  /// Calls use for each block of at most kBlock logits, in order; those of changes() are -inf.
  void for_each_block(
      const std::function<void(size_t begin, std::span<const float> block)>& use) const;
  static constexpr size_t kBlock = 1024;

 private:
  static bool is_lower(const Change& a, const Change& b) { return a.id < b.id; }
  double find_greatest() const;

  std::span<const float> logits_;
  std::vector<Change> changes_;  // by id
  double greatest_;
};

}  // namespace dsmoe
