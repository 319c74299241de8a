#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/moe/dispatch_kernels.h"

namespace dsmoe {

/// Of the scan over n_pairs marks.
int64_t list_rows_workspace_bytes(int64_t n_pairs);

/// Start the kernels on a stream of the current device; T as in the rows' own declaration.
void launch_list_rows(const RowLists& lists, cudaStream_t stream);
void launch_list_slots(const SlotLists& lists, cudaStream_t stream);
template <typename T>
void launch_dispatch_rows(const MovedRows<T>& rows, cudaStream_t stream);
template <typename T>
void launch_combine_rows(const MovedRows<T>& rows, cudaStream_t stream);

}  // namespace dsmoe
