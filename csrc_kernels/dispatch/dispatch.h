#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "csrc_kernels/dispatch/kernels.h"

namespace dsmoe {

/// The selected pairs of a token and an expert as rows sorted by expert, then by token, listed
/// where they were selected: the host knows only how many there are at most.
struct RoutedRows {
  at::Tensor row_of_pair;    // [n_experts, n_tokens] int32, the pair's row or -1
  at::Tensor token_of_row;   // [max_rows] int32, -1 past the last row
  at::Tensor expert_of_row;  // the same
  at::Tensor ends;           // [n_experts] int32, where each expert's rows end
};

/// selected  [n_tokens, n_experts] bool
/// max_rows  at least the number of selected pairs; what is above is left out
RoutedRows list_rows(const at::Tensor& selected, int64_t max_rows);

/// Each row is its token's row of x; zeros past the last. The gradient of a token sums its rows.
/// x [n_tokens, d], contiguous; returns [max_rows, d].
at::Tensor dispatch_rows(const at::Tensor& x, const RoutedRows& rows);

/// Each token is the sum of its rows, in the order of experts and in float32 (float64 for float64);
/// rows past the last are not read, and their gradient is zero.
/// y [max_rows, d], contiguous; returns [n_tokens, d] in its type.
at::Tensor combine_rows(const at::Tensor& y, const RoutedRows& rows);

/// The weight of each row's pair; 0 past the last. weights [n_tokens, n_experts]; returns
/// [max_rows]. The gradient of a pair without a row is zero.
at::Tensor gather_weights(const at::Tensor& weights, const RoutedRows& rows);

/// The same pairs by token: every token has the same number of slots, and its selected experts take
/// the first of them in their order.
struct TokenSlots {
  at::Tensor row_of_slot;  // [n_tokens * most] int32, -1 for an unused slot
  at::Tensor slot_of_row;  // [max_rows] int32, -1 past the last row
};

/// most  slots of a token; where it has more rows, the last of these get none
TokenSlots list_slots(const RoutedRows& rows, int64_t most);

/// Each slot is its row of y, zeros where it is unused. The gradient of a row without a slot is
/// zero. y [max_rows, d], contiguous; returns [n_tokens * most, d].
at::Tensor rows_to_slots(const at::Tensor& y, const TokenSlots& slots);

/// The way back: each row is its slot of y, zeros where it has none. The gradient of an unused slot
/// is zero. y [n_tokens * most, d], contiguous; returns [max_rows, d].
at::Tensor slots_to_rows(const at::Tensor& y, const TokenSlots& slots);

/// Whether the functions above have kernels for rows like x.
bool has_dispatch_kernels(const at::Tensor& x);

/// The definitions of right, of ATen calls that no device is waited for.
RoutedRows list_rows_ref(const at::Tensor& selected, int64_t max_rows);
at::Tensor dispatch_rows_ref(const at::Tensor& x, const RoutedRows& rows);
at::Tensor combine_rows_ref(const at::Tensor& y, const RoutedRows& rows);
TokenSlots list_slots_ref(const RoutedRows& rows, int64_t most);

}  // namespace dsmoe
