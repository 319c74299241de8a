#pragma once

#include <cstdint>

#include "csrc_kernels/common/isa.h"

namespace dsmoe {

/// Router logits [n_rows, E], contiguous; W is float or double.
template <typename W>
struct RouterRows {
  int64_t n_rows;
  int64_t n_experts;
  const W* logits;
  const bool* counted;  ///< [n_rows], or null: every row counts
};

/// Sums are kept per chunk of rows that depends on their number only: the same bits for any number
/// of threads.
inline int64_t mutual_information_chunks(int64_t n_rows) { return n_rows < 256 ? 1 : 32; }

DSMOE_DECLARE_FOR_ISAS(
    /// Over the counted rows of each chunk: sums[c, j] = sum p_j and sums[c, E] = sum p log p,
    /// with p the softmax of a row; sums [chunks, E + 1].
    template <typename W> void mutual_information_sums(const RouterRows<W>& rows, double* sums);
    /// grad_logits = factor * p_j (log_mean_j - log p_j + KL(p || mean)), zero for rows that do not
    /// count; log_mean [E].
    template <typename W>
    void mutual_information_backward(const RouterRows<W>& rows,
                                     const W* log_mean,
                                     W factor,
                                     W* grad_logits);)

}  // namespace dsmoe
