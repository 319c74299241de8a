#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "csrc_kernels/dispatch/kernels.h"

namespace dsmoe {

/// The (token, expert) pairs to compute, as rows sorted by expert, then by token.
///
/// Listed on the host, it has int64 lists and offsets. Listed on a device, where the host knows
/// only an upper bound of the number of rows, it has int32 lists, ends and row_of_pair.
struct Dispatch {
  int64_t n_tokens = 0;
  at::Tensor token_of_row{};       // [n_rows], -1 past the last; undefined: row i is token i
  at::Tensor expert_of_row{};      // the same
  at::Tensor weight_of_row{};      // [n_rows], or undefined: all ones
  std::vector<int64_t> offsets{};  // host: n_experts + 1, expert e's rows begin at offsets[e]
  at::Tensor ends{};               // device: [n_experts], where each expert's rows end
  at::Tensor row_of_pair{};        // device: [n_experts, n_tokens], the pair's row or -1
};

/// One expert that every token takes, in order, with weight 1.
inline Dispatch one_expert(int64_t n_tokens) {
  return {.n_tokens = n_tokens, .offsets = {0, n_tokens}};
}

/// Lists the selected pairs, or every pair, on the host: a host sync where a device holds them.
///
/// selected  [n_tokens, n_experts] bool
/// weights   the same shape; their gradient passes through weight_of_row
Dispatch list_on_host(const at::Tensor& selected,
                      const at::Tensor& weights,
                      bool every_pair = false);

/// Lists the selected pairs where they were selected, without a host sync and without weights.
///
/// max_rows  at least the number of selected pairs; what is above is left out
Dispatch list_rows(const at::Tensor& selected, int64_t max_rows);

/// Each row is its token's row of x; zeros past the last. The gradient of a token sums its rows.
/// x [n_tokens, d], contiguous; returns [n_rows, d].
at::Tensor dispatch_rows(const at::Tensor& x, const Dispatch& rows);

/// Each token is the sum of its rows, in the order of experts and in float32 (float64 for float64),
/// plus a bias [d], added once; rows past the last are not read, and their gradient is zero.
/// y [n_rows, d], contiguous; returns [n_tokens, d] in its type.
at::Tensor combine_rows(const at::Tensor& y, const Dispatch& rows, const at::Tensor& bias = {});

/// The weight of each row's pair; 0 past the last. weights [n_tokens, n_experts]; returns
/// [max_rows]. The gradient of a pair without a row is zero. For rows listed on a device.
at::Tensor gather_weights(const at::Tensor& weights, const Dispatch& rows);

/// The same rows by token, as a Dispatch of one expert whose tokens are slots: each token has
/// `most` slots, and its rows take the first of them in their order. combine_rows moves rows to
/// slots, zeros where one is unused, and dispatch_rows moves them back.
///
/// most  slots of a token; where it has more rows, the last of these get none
/// rows  listed on a device
Dispatch list_slots(const Dispatch& rows, int64_t most);

/// Whether the functions above have kernels for rows like x.
bool has_dispatch_kernels(const at::Tensor& x);

/// Reference implementations of ATen calls without a host sync.
Dispatch list_rows_ref(const at::Tensor& selected, int64_t max_rows);
at::Tensor dispatch_rows_ref(const at::Tensor& x, const Dispatch& rows);
at::Tensor combine_rows_ref(const at::Tensor& y, const Dispatch& rows);
Dispatch list_slots_ref(const Dispatch& rows, int64_t most);

}  // namespace dsmoe
