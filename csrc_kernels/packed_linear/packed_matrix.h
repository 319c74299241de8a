#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>

#include "csrc_kernels/grouped_linear/grouped_linear.h"
#include "csrc_kernels/packed_linear/packed_layout.h"

namespace dsmoe {

/// A packed weight for the kernels of inference, without gradient. Copies share the bytes.
struct PackedMatrix {
  PackedShape shape;
  at::Tensor data;  // [shape.size_bytes()] uint8

  bool defined() const { return data.defined(); }
  PackedView view() const {
    return {shape, reinterpret_cast<const std::byte*>(data.const_data_ptr<uint8_t>())};
  }
};

/// Packs a wide weight whose experts are blocks of rows or of columns, or a plain weight (1
/// expert).
///
/// weight  [n_experts * d_out, d_in] for kRows, [d_out, n_experts * d_in] for kColumns; float32,
///         bfloat16 or float64
/// on_read, if given, is called with each piece of a contiguous weight after its last read, so that
/// a mapped file need not be in memory as a whole.
/// Throws c10::Error if n_experts does not divide it.
using ReadCallback = std::function<void(const void* data, size_t size_bytes)>;
PackedMatrix pack_matrix(const at::Tensor& weight,
                         PackedFormat format,
                         int64_t n_experts = 1,
                         ExpertAxis axis = ExpertAxis::kRows,
                         const ReadCallback& on_read = {});

/// Returns the weight in float32 and its original layout; reference implementations multiply it.
at::Tensor unpack_matrix(const PackedMatrix& matrix, ExpertAxis axis = ExpertAxis::kRows);

}  // namespace dsmoe
