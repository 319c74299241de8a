#include "csrc_kernels/moe/expert_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

#include "common/thread_pool.h"
#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/linear/packed_rows.h"

namespace dsmoe {
namespace {

using Tile = std::array<float, 16 * kPanelWidth>;  // 16: above every PanelKernels::max_rows

// One of several packed weights that the same rows meet.
struct Side {
  PackedView weight;
  const float* bias;  // [n_experts * d_out], or null

  explicit Side(const PackedLinear& linear)
      : weight(linear.weight.view()), bias(pointer<const float>(linear.bias)) {}
};

void multiply(const Side& side,
              int64_t expert,
              int64_t panel,
              const PackedRows::Block& block,
              Tile& tile) {
  const auto& shape = side.weight.shape;
  panel_kernels().multiply({.format = shape.format,
                            .d_in = shape.d_in,
                            .n_rows = block.n_rows,
                            .panel = side.weight.panel(expert, panel),
                            .rows = block.data,
                            .sums = tile.data()});
}

void add_bias(const float* bias, int64_t n_rows, int64_t n, Tile& tile) {
  for (int64_t r = 0; r < n_rows; ++r) {
    row_kernels<float>().store(
        n, tile.data() + r * kPanelWidth, bias, tile.data() + r * kPanelWidth);
  }
}

// The product of a block and a panel, biased.
void project(const Side& side,
             int64_t expert,
             int64_t panel,
             const PackedRows::Block& block,
             Tile& tile) {
  multiply(side, expert, panel, block, tile);
  if (side.bias == nullptr) return;
  const int64_t d_out = side.weight.shape.d_out;
  const int64_t first = panel * kPanelWidth;
  const float* bias = side.bias + expert * d_out + first;
  add_bias(bias, block.n_rows, std::min(kPanelWidth, d_out - first), tile);
}

void check_pairs(const char* who, const ExpertPairs& pairs, const PackedLinear& linear) {
  const auto& shape = linear.weight.shape;
  const auto& tokens = pairs.token_of_row;
  const int64_t n_rows = tokens.defined() ? tokens.numel() : pairs.offsets.back();
  TORCH_CHECK(!tokens.defined() || (tokens.dim() == 1 && tokens.scalar_type() == at::kLong &&
                                    tokens.is_contiguous()),
              who,
              ": expected token_of_row [n_rows] of int64");
  TORCH_CHECK(static_cast<int64_t>(pairs.offsets.size()) == shape.n_experts + 1 &&
                  pairs.offsets.front() == 0 && pairs.offsets.back() == n_rows &&
                  std::is_sorted(pairs.offsets.begin(), pairs.offsets.end()),
              who,
              ": expected offsets of ",
              shape.n_experts,
              " experts that end at the number of rows, ",
              n_rows);
  TORCH_CHECK(
      !pairs.weight_of_row.defined() ||
          (pairs.weight_of_row.dim() == 1 && pairs.weight_of_row.size(0) == n_rows &&
           pairs.weight_of_row.scalar_type() == at::kFloat && pairs.weight_of_row.is_contiguous()),
      who,
      ": expected weight_of_row [",
      n_rows,
      "] of float32");
}

void check_rows(const char* who, const at::Tensor& x, const PackedLinear& linear, int64_t n_bias) {
  const auto& shape = linear.weight.shape;
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && x.size(1) == shape.d_in,
              who,
              ": expected rows [n, ",
              shape.d_in,
              "], contiguous, got ",
              x.sizes());
  TORCH_CHECK(!linear.bias.defined() ||
                  (linear.bias.dim() == 1 && linear.bias.size(0) == n_bias &&
                   linear.bias.scalar_type() == at::kFloat && linear.bias.is_contiguous()),
              who,
              ": expected a bias [",
              n_bias,
              "] of float32");
}

void check_tokens(const char* who, const ExpertPairs& pairs, int64_t n_tokens) {
  if (!pairs.token_of_row.defined()) {
    TORCH_CHECK(pairs.offsets.back() == n_tokens, who, ": expected a row for each of ", n_tokens);
    return;
  }
  const auto* tokens = pairs.token_of_row.const_data_ptr<int64_t>();
  const bool all_there = std::all_of(tokens, tokens + pairs.offsets.back(), [&](int64_t token) {
    return token >= 0 && token < n_tokens;
  });
  TORCH_CHECK(all_there, who, ": expected tokens below ", n_tokens);
}

// An expert with rows, times a panel: what one item of a region does.
struct ExpertPanel {
  int64_t expert;
  int64_t panel;
};

std::vector<ExpertPanel> list_work(const ExpertPairs& pairs, int64_t n_panels) {
  std::vector<ExpertPanel> work;
  for (size_t e = 0; e + 1 < pairs.offsets.size(); ++e) {
    if (pairs.offsets[e] == pairs.offsets[e + 1]) continue;
    for (int64_t panel = 0; panel < n_panels; ++panel) {
      work.push_back({static_cast<int64_t>(e), panel});
    }
  }
  return work;
}

template <typename T>
void fill_hidden(const at::Tensor& x,
                 const ExpertPairs& pairs,
                 const ExpertInput& input,
                 const at::Tensor& hidden) {
  const auto& shape = input.up.weight.shape;
  const auto* tokens = pointer<const int64_t>(pairs.token_of_row);
  const PackedRows rows(shape.format,
                        RowSource<T>{pointer<const T>(x), shape.d_in, tokens, pairs.offsets});
  const Side up(input.up);
  const bool gated = input.activation == Activation::kSwiglu;
  const Side gate(gated ? input.gate : input.up);
  const auto* weights = pointer<const float>(pairs.weight_of_row);
  const auto work = list_work(pairs, shape.n_panels());
  kernel_threads().run(static_cast<int64_t>(work.size()), [&](int64_t item, int) {
    const auto [expert, panel] = work[static_cast<size_t>(item)];
    const int64_t first = panel * kPanelWidth;
    alignas(64) Tile up_tile;
    alignas(64) Tile gate_tile;
    for (const auto& block : rows.blocks_of(expert)) {
      project(up, expert, panel, block, up_tile);
      if (gated) project(gate, expert, panel, block, gate_tile);
      for (int64_t r = 0; r < block.n_rows; ++r) {
        const int64_t row = block.first_row + r;
        float* values = up_tile.data() + r * kPanelWidth;
        panel_kernels().activate(input.activation,
                                 weights == nullptr ? 1.0F : weights[row],
                                 gate_tile.data() + r * kPanelWidth,
                                 values);
        row_kernels<T>().store(std::min(kPanelWidth, shape.d_out - first),
                               values,
                               nullptr,
                               pointer<T>(hidden) + row * shape.d_out + first);
      }
    }
  });
}

template <typename T>
void fill_sum(const at::Tensor& hidden,
              const ExpertPairs& pairs,
              const PackedLinear& down,
              const at::Tensor& y) {
  const auto& shape = down.weight.shape;
  const int64_t n_tokens = y.size(0);
  const auto* tokens = pointer<const int64_t>(pairs.token_of_row);
  const PackedRows rows(shape.format,
                        RowSource<T>{pointer<const T>(hidden), shape.d_in, nullptr, pairs.offsets});
  const Side side(down);
  const int n_threads = kernel_threads().n_threads();
  const auto scratch = at::empty({n_threads, n_tokens, kPanelWidth}, at::kFloat);
  kernel_threads().run(shape.n_panels(), [&](int64_t panel, int thread) {
    float* sums = scratch.data_ptr<float>() + thread * n_tokens * kPanelWidth;
    std::fill_n(sums, n_tokens * kPanelWidth, 0.0F);
    alignas(64) Tile tile;
    for (int64_t expert = 0; expert < shape.n_experts; ++expert) {
      for (const auto& block : rows.blocks_of(expert)) {
        multiply(side, expert, panel, block, tile);
        for (int64_t r = 0; r < block.n_rows; ++r) {
          const int64_t row = block.first_row + r;
          float* sum = sums + (tokens == nullptr ? row : tokens[row]) * kPanelWidth;
          row_kernels<float>().store(kPanelWidth, sum, tile.data() + r * kPanelWidth, sum);
        }
      }
    }
    const int64_t first = panel * kPanelWidth;
    for (int64_t token = 0; token < n_tokens; ++token) {
      row_kernels<T>().store(std::min(kPanelWidth, shape.d_out - first),
                             sums + token * kPanelWidth,
                             side.bias == nullptr ? nullptr : side.bias + first,
                             pointer<T>(y) + token * shape.d_out + first);
    }
  });
}

}  // namespace

at::Tensor expert_hidden(const at::Tensor& x, const ExpertPairs& pairs, const ExpertInput& input) {
  constexpr const char* kName = "expert_hidden";
  const auto& shape = input.up.weight.shape;
  check_pairs(kName, pairs, input.up);
  check_rows(kName, x, input.up, shape.n_experts * shape.d_out);
  check_tokens(kName, pairs, x.size(0));
  if (input.activation == Activation::kSwiglu) {
    const auto& other = input.gate.weight.shape;
    TORCH_CHECK(other.n_experts == shape.n_experts && other.d_out == shape.d_out &&
                    other.format == shape.format,
                kName,
                ": expected a gate like up, ",
                shape.n_experts,
                " times [",
                shape.d_out,
                ", ",
                shape.d_in,
                "]");
    check_rows(kName, x, input.gate, shape.n_experts * shape.d_out);
  }
  auto hidden = at::empty({pairs.offsets.back(), shape.d_out}, x.options());
  dispatch_row_types(
      kName, x.scalar_type(), [&]<typename T>() { fill_hidden<T>(x, pairs, input, hidden); });
  return hidden;
}

at::Tensor expert_sum(const at::Tensor& hidden,
                      const ExpertPairs& pairs,
                      const PackedLinear& down,
                      int64_t n_tokens) {
  constexpr const char* kName = "expert_sum";
  check_pairs(kName, pairs, down);
  check_rows(kName, hidden, down, down.weight.shape.d_out);
  check_tokens(kName, pairs, n_tokens);
  auto y = at::empty({n_tokens, down.weight.shape.d_out}, hidden.options());
  dispatch_row_types(
      kName, hidden.scalar_type(), [&]<typename T>() { fill_sum<T>(hidden, pairs, down, y); });
  return y;
}

}  // namespace dsmoe
