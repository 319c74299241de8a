#include "csrc_kernels/linear/packed_matrix.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <memory>

#include "common/large_memory.h"
#include "common/thread_pool.h"

namespace dsmoe {
namespace {

// The block of one expert, [d_out, d_in].
at::Tensor expert_block(const at::Tensor& weight, int64_t expert, int64_t n, ExpertAxis axis) {
  const int64_t dim = axis == ExpertAxis::kRows ? 0 : 1;
  const int64_t width = weight.size(dim) / n;
  return weight.narrow(dim, expert * width, width);
}

at::Tensor empty_bytes(int64_t n) {
  constexpr int64_t kSmall = 1 << 20;  // not worth a page of 2 MiB
  if (n <= kSmall) return at::empty({n}, at::kByte);
  auto memory = std::make_shared<LargeMemory>(n);
  auto* data = memory->data();
  return at::from_blob(
      data, {n}, [memory](void*) mutable { memory.reset(); }, at::TensorOptions(at::kByte));
}

}  // namespace

PackedMatrix pack_matrix(const at::Tensor& weight,
                         PackedFormat format,
                         int64_t n_experts,
                         ExpertAxis axis) {
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
  const auto& shape = packed.shape;
  for (int64_t expert = 0; expert < n_experts; ++expert) {
    const auto block =
        expert_block(weight.detach(), expert, n_experts, axis).to(at::kFloat).contiguous();
    const auto* rows = block.const_data_ptr<float>();
    kernel_threads().run(shape.n_panels(), [&](int64_t panel, int) {
      const int64_t row = panel * kPanelWidth;
      pack_panel(shape,
                 rows + row * shape.d_in,
                 std::min(kPanelWidth, shape.d_out - row),
                 data + (expert * shape.n_panels() + panel) * shape.panel_bytes());
    });
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
