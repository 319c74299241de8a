#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// Which dimension of a wide expert matrix holds the experts' blocks.
enum class ExpertAxis {
  kRows,     ///< weight [n_experts * width, in]: up, gate and query projections
  kColumns,  ///< weight [out, n_experts * width]: down and output projections
};

/// Multiplies each row by the block of its own expert; rows are sorted by expert.
///
/// x        [n_rows, in], rows offsets[i] .. offsets[i + 1] belong to expert i
/// weight   wide, see ExpertAxis; kRows: [n_experts * width, in], kColumns: [out, n_experts * in]
/// offsets  n_experts + 1 ascending row numbers from 0 to n_rows; an expert may have no row
/// returns  [n_rows, width] for kRows, [n_rows, out] for kColumns
/// Gradients reach x and weight; blocks of experts without rows get exact zeros.
/// Throws c10::Error if the shapes, types or offsets disagree.
at::Tensor grouped_linear(const at::Tensor& x,
                          const at::Tensor& weight,
                          const std::vector<int64_t>& offsets,
                          ExpertAxis axis);

/// The same with the ends of the experts' rows on the device, without a host sync where
/// at::_grouped_mm has a kernel (bfloat16 from compute capability 9.0 on).
///
/// ends     [n_experts] int32, ascending, at most n_rows; rows past the last are not read, and
/// those
///          of the result and of the gradient of x hold anything
/// All widths must be multiples of 16 bytes (see takes_ends), x contiguous.
at::Tensor grouped_linear_by_ends(const at::Tensor& x,
                                  const at::Tensor& weight,
                                  const at::Tensor& ends,
                                  ExpertAxis axis);

/// Whether rows of this type and these widths may be given with ends on the device.
bool takes_ends(at::ScalarType type, int64_t in_features, int64_t out_features);

/// Reference implementation: one matmul per expert, written with differentiable ATen calls.
at::Tensor grouped_linear_ref(const at::Tensor& x,
                              const at::Tensor& weight,
                              const std::vector<int64_t>& offsets,
                              ExpertAxis axis);

}  // namespace dsmoe
