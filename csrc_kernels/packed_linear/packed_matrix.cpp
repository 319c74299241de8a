#include "csrc_kernels/packed_linear/packed_matrix.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "common/huge_pages.h"
#include "common/thread_pool.h"

namespace dsmoe {
namespace {

constexpr int64_t kPieceBytes = 2 << 20;

// The block of one expert, [d_out, d_in].
at::Tensor expert_block(const at::Tensor& weight, int64_t expert, int64_t n, ExpertAxis axis) {
  const int64_t dim = axis == ExpertAxis::kRows ? 0 : 1;
  const int64_t width = weight.size(dim) / n;
  return weight.narrow(dim, expert * width, width);
}

at::Tensor empty_bytes(int64_t n) {
  constexpr int64_t kSmall = 1 << 20;  // too small for a page of 2 MiB
  if (n <= kSmall) return at::empty({n}, at::kByte);
  auto memory = std::make_shared<HugePages>(n);
  auto* data = memory->data();
  return at::from_blob(
      data, {n}, [memory](void*) mutable { memory.reset(); }, at::TensorOptions(at::kByte));
}

// Rows of the weight that form one panel of an expert, or of every expert.
struct Strip {
  int64_t first_row;
  int64_t n_rows;
  int64_t panel;
  int64_t expert;  // under kRows
};

std::vector<Strip> list_strips(const PackedShape& shape, ExpertAxis axis) {
  std::vector<Strip> strips;
  const int64_t n_blocks = axis == ExpertAxis::kRows ? shape.n_experts : 1;
  for (int64_t expert = 0; expert < n_blocks; ++expert) {
    for (int64_t panel = 0; panel < shape.n_panels(); ++panel) {
      const int64_t row = panel * kPanelWidth;
      strips.push_back({.first_row = expert * shape.d_out + row,
                        .n_rows = std::min(kPanelWidth, shape.d_out - row),
                        .panel = panel,
                        .expert = expert});
    }
  }
  return strips;
}

// Packs the rows of a strip, `width` numbers each.
void pack_strip(const PackedShape& shape,
                const Strip& strip,
                const float* rows,
                int64_t width,
                std::byte* data) {
  const auto panel_of = [&](int64_t expert) {
    return data + (expert * shape.n_panels() + strip.panel) * shape.panel_bytes();
  };
  if (width == shape.d_in) return pack_panel(shape, rows, strip.n_rows, panel_of(strip.expert));
  std::vector<float> own(static_cast<size_t>(strip.n_rows * shape.d_in));
  for (int64_t expert = 0; expert < shape.n_experts; ++expert) {
    for (int64_t row = 0; row < strip.n_rows; ++row) {
      std::copy_n(
          rows + row * width + expert * shape.d_in, shape.d_in, own.data() + row * shape.d_in);
    }
    pack_panel(shape, own.data(), strip.n_rows, panel_of(expert));
  }
}

}  // namespace

PackedMatrix pack_matrix(const at::Tensor& weight,
                         PackedFormat format,
                         int64_t n_experts,
                         ExpertAxis axis,
                         const ReadCallback& on_read) {
  const int64_t dim = axis == ExpertAxis::kRows ? 0 : 1;
  TORCH_CHECK(weight.dim() == 2 && n_experts > 0 && weight.size(dim) % n_experts == 0,
              "pack_matrix: expected a matrix of ",
              n_experts,
              " equal blocks, got ",
              weight.sizes());
  const auto first = expert_block(weight.detach(), 0, n_experts, axis);
  PackedMatrix packed;
  packed.shape = {format, n_experts, first.size(0), first.size(1)};
  packed.data = empty_bytes(packed.shape.size_bytes());
  auto* data = reinterpret_cast<std::byte*>(packed.data.data_ptr<uint8_t>());
  const auto strips = list_strips(packed.shape, axis);
  const int64_t width = weight.size(1);
  const auto n_strips = static_cast<int64_t>(strips.size());
  // Reads pieces of some MiB, from the first row to the last.
  const int64_t n_together = std::max<int64_t>(1, kPieceBytes / (kPanelWidth * width * 4));
  for (int64_t begin = 0; begin < n_strips; begin += n_together) {
    const int64_t n = std::min(n_together, n_strips - begin);
    const int64_t row = strips[static_cast<size_t>(begin)].first_row;
    const auto& last = strips[static_cast<size_t>(begin + n - 1)];
    const auto source = weight.detach().narrow(0, row, last.first_row + last.n_rows - row);
    const auto rows = source.to(at::kFloat).contiguous();
    kernel_threads().run(n, [&](int64_t i, int) {
      const auto& strip = strips[static_cast<size_t>(begin + i)];
      const auto* at = rows.const_data_ptr<float>() + (strip.first_row - row) * width;
      pack_strip(packed.shape, strip, at, width, data);
    });
    if (on_read && source.is_contiguous()) on_read(source.const_data_ptr(), source.nbytes());
  }
  return packed;
}

at::Tensor unpack_matrix(const PackedMatrix& matrix, ExpertAxis axis) {
  const auto& shape = matrix.shape;
  const bool by_rows = axis == ExpertAxis::kRows;
  auto weight = by_rows ? at::empty({shape.n_experts * shape.d_out, shape.d_in}, at::kFloat)
                        : at::empty({shape.d_out, shape.n_experts * shape.d_in}, at::kFloat);
  auto panel = at::empty({kPanelWidth, shape.d_in}, at::kFloat);
  for (int64_t expert = 0; expert < shape.n_experts; ++expert) {
    const auto block = expert_block(weight, expert, shape.n_experts, axis);
    for (int64_t i = 0; i < shape.n_panels(); ++i) {
      unpack_panel(shape, matrix.view().panel(expert, i), panel.data_ptr<float>());
      const int64_t n = std::min(kPanelWidth, shape.d_out - i * kPanelWidth);
      block.narrow(0, i * kPanelWidth, n).copy_(panel.narrow(0, 0, n));
    }
  }
  return weight;
}

}  // namespace dsmoe
