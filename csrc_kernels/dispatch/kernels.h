#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// The pairs of a token and an expert as rows, sorted by expert, then by token.
struct RowLists {
  int64_t n_tokens;
  int64_t n_experts;
  int64_t max_rows;
  const bool* selected;    ///< [n_tokens, E]
  int32_t* row_of_pair;    ///< [E, n_tokens]: the pair's row, or -1
  int32_t* token_of_row;   ///< [max_rows], -1 past the last row
  int32_t* expert_of_row;  ///< the same
  int32_t* ends;           ///< [E]: where each expert's rows end
  void* workspace;         ///< of DispatchKernels::workspace_bytes(n_tokens * E)
};

/// The rows by token: `most` slots each, of which its rows take the first, expert by expert.
struct SlotLists {
  int64_t n_tokens;
  int64_t n_experts;
  int64_t most;
  const int32_t* row_of_pair;  ///< [E, n_tokens], or -1
  int32_t* row_of_slot;        ///< [n_tokens, most], -1 for an unused slot
  int32_t* slot_of_row;        ///< [max_rows]; holds -1 before
};

/// Kernels of another device.
struct DispatchKernels {
  void (*list)(const RowLists& lists);
  void (*list_slots)(const SlotLists& lists);
  int64_t (*workspace_bytes)(int64_t n_pairs);
};

/// Contiguous rows that go from tokens to pairs or back; T is float or Bfloat16.
template <typename T>
struct MovedRows {
  int64_t n_tokens;
  int64_t n_experts;
  int64_t max_rows;
  int64_t width;
  const int32_t* row_of_pair;   ///< [E, n_tokens]
  const int32_t* token_of_row;  ///< [max_rows]
  const T* from;                ///< dispatch: [n_tokens, width]; combine: [max_rows, width]
  T* to;                        ///< the other one
};

template <typename T>
struct MoveRowsKernels {
  /// Each row is its token's; zeros past the last.
  void (*dispatch)(const MovedRows<T>& rows);
  /// Each token is the sum of its rows, in the order of experts, in float32.
  void (*combine)(const MovedRows<T>& rows);
};

}  // namespace dsmoe
