#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dsmoe {

/// Which corpus gives each sample of the endless training stream: a pure function of the position,
/// with no memory. Every corpus's own samples 0, 1, 2, ... appear in order and without a gap.
///
/// Shares hold over every window, not only on average: of any m samples in a row, a corpus of share
/// w gives w * m, off by less than ceil(log2(n_corpora)) (and m / 2^32 for the rounding of shares).
class CorpusMix {
 public:
  /// Throws Error for a weight that is not a number above 0, or none.
  explicit CorpusMix(const std::vector<double>& weights);

  struct Place {
    size_t corpus;
    int64_t position;  // in the corpus's own endless stream
  };
  Place at(int64_t position) const;

 private:
  // A halving of some corpora. Children below 0 are corpora: -1 - index.
  struct Node {
    uint64_t left_share;  // in units of 2^-32
    int64_t left;
    int64_t right;
  };
  int64_t add_node(const std::vector<double>& weights, size_t begin, size_t end);

  std::vector<Node> nodes_;
  int64_t root_;
};

}  // namespace dsmoe
