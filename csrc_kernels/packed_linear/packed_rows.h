#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "csrc_kernels/packed_linear/kernels.h"

namespace dsmoe {

/// Rows of T (float or Bfloat16) to multiply, sorted by expert.
template <typename T>
struct RowSource {
  const T* x;  // [..., d_in]
  int64_t d_in;
  const int64_t* x_of_row;           // [n_rows], or null: row i of x is row i
  std::span<const int64_t> offsets;  // n_experts + 1: rows offsets[e] .. offsets[e + 1] are e's
};

/// Rows in the layout of PanelKernels, in blocks of at most PanelKernels::max_rows of one expert.
class PackedRows {
 public:
  struct Block {
    int64_t first_row;
    int64_t n_rows;
    const std::byte* data;
  };

  template <typename T>
  PackedRows(PackedFormat format, const RowSource<T>& source);

  std::span<const Block> blocks_of(int64_t expert) const {
    const auto begin = static_cast<size_t>(first_block_[static_cast<size_t>(expert)]);
    const auto end = static_cast<size_t>(first_block_[static_cast<size_t>(expert) + 1]);
    return std::span(blocks_).subspan(begin, end - begin);
  }
  std::span<const Block> blocks() const { return blocks_; }
  int64_t n_experts() const { return static_cast<int64_t>(first_block_.size()) - 1; }

 private:
  std::unique_ptr<std::byte[]> data_;
  std::vector<Block> blocks_;
  std::vector<int64_t> first_block_;  // n_experts + 1
};

}  // namespace dsmoe
