#include "csrc_kernels/packed_linear/packed_rows.h"

#include <array>

#include "common/thread_pool.h"

namespace dsmoe {
namespace {

constexpr int64_t kMostRows = 16;             // above every PanelKernels::max_rows
constexpr int64_t kSerialElements = 1 << 15;  // below, a parallel region costs more than the work

template <typename T>
void pack_block(PackedFormat format,
                const RowSource<T>& source,
                const PackedRows::Block& block,
                std::byte* data) {
  std::array<const T*, kMostRows> rows{};
  for (int64_t i = 0; i < block.n_rows; ++i) {
    const int64_t row = block.first_row + i;
    const int64_t at = source.x_of_row == nullptr ? row : source.x_of_row[row];
    rows[static_cast<size_t>(i)] = source.x + at * source.d_in;
  }
  row_kernels<T>().pack(format, source.d_in, block.n_rows, rows.data(), data);
}

}  // namespace

template <typename T>
PackedRows::PackedRows(PackedFormat format, const RowSource<T>& source) {
  const auto& kernels = panel_kernels();
  const int64_t row_bytes = kernels.row_bytes(format, source.d_in);
  const int64_t n_rows = source.offsets.back();
  data_.reset(new std::byte[static_cast<size_t>(n_rows * row_bytes)]);
  first_block_.push_back(0);
  for (size_t e = 0; e + 1 < source.offsets.size(); ++e) {
    const int64_t begin = source.offsets[e];
    const int64_t n = source.offsets[e + 1] - begin;
    // Blocks of nearly equal size rather than full ones and a remainder.
    const int64_t max_rows = kernels.max_rows(format);
    const int64_t n_blocks = (n + max_rows - 1) / max_rows;
    for (int64_t i = 0; i < n_blocks; ++i) {
      const int64_t first = begin + n * i / n_blocks;
      const int64_t end = begin + n * (i + 1) / n_blocks;
      blocks_.push_back({first, end - first, data_.get() + first * row_bytes});
    }
    first_block_.push_back(static_cast<int64_t>(blocks_.size()));
  }
  const auto pack_one = [&](int64_t i, int) {
    const auto& block = blocks_[static_cast<size_t>(i)];
    pack_block(format, source, block, data_.get() + block.first_row * row_bytes);
  };
  const auto n_blocks = static_cast<int64_t>(blocks_.size());
  if (n_rows * source.d_in > kSerialElements) {
    kernel_threads().run(n_blocks, pack_one);
  } else {
    for (int64_t i = 0; i < n_blocks; ++i) pack_one(i, 0);
  }
}

template PackedRows::PackedRows(PackedFormat, const RowSource<float>&);
template PackedRows::PackedRows(PackedFormat, const RowSource<Bfloat16>&);

}  // namespace dsmoe
