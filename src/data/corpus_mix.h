#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dsmoe {

/// Maps a position of the endless training stream to a corpus: a pure function of the position,
/// without state. Every corpus's own samples 0, 1, 2, ... appear in order and without a gap.
///
/// Shares hold over every window, not only on average: of any m consecutive samples, a corpus of
/// share w has w * m, off by less than ceil(log2(n_corpora)) (and m / 2^32 for the rounding of
/// shares).
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
  // A node that splits some corpora in two. Children below 0 are corpora: -1 - index.
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
