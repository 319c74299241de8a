#include "csrc_kernels/packed_linear/packed_linear.h"

#include <ATen/ops/empty.h>

#include <array>

#include "common/thread_pool.h"
#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/packed_linear/packed_rows.h"

namespace dsmoe {
namespace {

constexpr const char* kName = "packed_linear";

void check(const at::Tensor& x, const std::vector<PackedLinear>& weights, at::ScalarType type) {
  TORCH_CHECK(x.dim() >= 1 && x.is_contiguous(), kName, ": expected x contiguous, got ", x.sizes());
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16,
              kName,
              ": expected results of float32 or bfloat16, got ",
              type);
  TORCH_CHECK(!weights.empty(), kName, ": expected at least one weight");
  for (const auto& [weight, bias] : weights) {
    const auto& shape = weight.shape;
    TORCH_CHECK(shape.n_experts == 1 && shape.d_in == x.size(-1) &&
                    shape.format == weights[0].weight.shape.format,
                kName,
                ": expected weights [d_out, ",
                x.size(-1),
                "] of one expert and one format, got [",
                shape.d_out,
                ", ",
                shape.d_in,
                "] of ",
                shape.n_experts);
    TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == shape.d_out &&
                                    bias.scalar_type() == at::kFloat && bias.is_contiguous()),
                kName,
                ": expected a bias [",
                shape.d_out,
                "] of float32");
  }
}

// A weight and its result.
struct Output {
  PackedView weight;
  const float* bias;
  at::Tensor y;
};

template <typename Y>
void multiply_panel(const PackedRows& rows, const Output& output, int64_t panel) {
  const auto& shape = output.weight.shape;
  const int64_t first = panel * kPanelWidth;
  const int64_t n = std::min(kPanelWidth, shape.d_out - first);
  const float* bias = output.bias == nullptr ? nullptr : output.bias + first;
  // If all threads are equally fast, the next panel of this one is n_threads further.
  const int64_t following = std::min(panel + kernel_threads().n_threads(), shape.n_panels() - 1);
  alignas(64) std::array<float, 16 * kPanelWidth> sums;
  bool is_cached = false;
  for (const auto& block : rows.blocks()) {
    panel_kernels().multiply({.format = shape.format,
                              .d_in = shape.d_in,
                              .n_rows = block.n_rows,
                              .panel = output.weight.panel(0, panel),
                              .rows = block.data,
                              .sums = sums.data(),
                              .next = output.weight.panel(0, following),
                              .is_cached = is_cached});
    is_cached = true;
    Y* y = pointer<Y>(output.y) + block.first_row * shape.d_out + first;
    for (int64_t r = 0; r < block.n_rows; ++r) {
      row_kernels<Y>().store(n, sums.data() + r * kPanelWidth, bias, y + r * shape.d_out);
    }
  }
}

template <typename Y>
void multiply_all(const PackedRows& rows, const std::vector<Output>& outputs) {
  int64_t n_panels = 0;
  for (const auto& output : outputs) n_panels += output.weight.shape.n_panels();
  kernel_threads().run(n_panels, [&](int64_t item, int) {
    const Output* output = outputs.data();
    for (; item >= output->weight.shape.n_panels(); ++output)
      item -= output->weight.shape.n_panels();
    multiply_panel<Y>(rows, *output, item);
  });
}

}  // namespace

std::vector<at::Tensor> packed_linear(const at::Tensor& x,
                                      const std::vector<PackedLinear>& weights,
                                      at::ScalarType type) {
  check(x, weights, type);
  const int64_t n_rows = x.numel() / x.size(-1);
  std::vector<Output> outputs;
  std::vector<at::Tensor> results;
  for (const auto& [weight, bias] : weights) {
    auto sizes = x.sizes().vec();
    sizes.back() = weight.shape.d_out;
    results.push_back(at::empty(sizes, x.options().dtype(type)));
    outputs.push_back({weight.view(), pointer<const float>(bias), results.back()});
  }
  const std::array<int64_t, 2> offsets{0, n_rows};
  const auto format = weights[0].weight.shape.format;
  const auto run = [&]<typename X>() {
    const PackedRows rows(format, RowSource<X>{pointer<const X>(x), x.size(-1), nullptr, offsets});
    type == at::kFloat ? multiply_all<float>(rows, outputs) : multiply_all<Bfloat16>(rows, outputs);
  };
  dispatch_row_types(kName, x.scalar_type(), run);
  return results;
}

}  // namespace dsmoe
