#include "csrc_kernels/expert_rows/expert_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

#include "common/thread_pool.h"
#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/packed_linear/packed_rows.h"

namespace dsmoe {
namespace {

constexpr int64_t kTileSize = 16 * kPanelWidth;  // 16: above every PanelKernels::max_rows
constexpr int64_t kMaxGroup = 4;

using Tile = std::array<float, kTileSize>;
using TileGroup = std::array<Tile, kMaxGroup>;

// Consecutive panels of one expert: what is read in one go. Few rows are done before the memory
// system has found its pace, so that their panels are read in long runs.
struct PanelRun {
  int64_t expert;
  int64_t first;
  int64_t count;
};

int64_t run_length(int64_t n_panels, bool few_rows) {
  if (!few_rows) return 1;
  const int64_t n_threads = kernel_threads().n_threads();
  return std::clamp<int64_t>(n_panels / (4 * n_threads), 1, kMaxGroup);
}

// One of several packed weights that the same rows meet.
struct Side {
  PackedView weight;
  const float* bias;  // [n_experts * d_out], or null

  explicit Side(const PackedLinear& linear)
      : weight(linear.weight.view()), bias(pointer<const float>(linear.bias)) {}

  const std::byte* panel(const PanelRun& run, int64_t i = 0) const {
    return weight.panel(run.expert, run.first + i);
  }
};

// What is read after a panel, and whether the panel was read before.
struct Order {
  const std::byte* next;
  bool is_cached;
};

void multiply(const Side& side,
              const std::byte* panel,
              const Order& order,
              const PackedRows::Block& block,
              Tile& tile) {
  const auto& shape = side.weight.shape;
  panel_kernels().multiply({.format = shape.format,
                            .d_in = shape.d_in,
                            .n_rows = block.n_rows,
                            .panel = panel,
                            .rows = block.data,
                            .sums = tile.data(),
                            .next = order.next,
                            .is_cached = order.is_cached});
}

void add_bias(const float* bias, int64_t n_rows, int64_t n, Tile& tile) {
  for (int64_t r = 0; r < n_rows; ++r) {
    row_kernels<float>().store(
        n, tile.data() + r * kPanelWidth, bias, tile.data() + r * kPanelWidth);
  }
}

// The products of a block and a run of panels, biased; `then` is what is read after the run.
void project(const Side& side,
             const PanelRun& run,
             const Order& then,
             const PackedRows::Block& block,
             TileGroup& tiles) {
  const int64_t d_out = side.weight.shape.d_out;
  for (int64_t i = 0; i < run.count; ++i) {
    auto& tile = tiles[static_cast<size_t>(i)];
    const bool goes_on = !then.is_cached && i + 1 < run.count;
    const Order order{goes_on ? side.panel(run, i + 1) : then.next, then.is_cached};
    multiply(side, side.panel(run, i), order, block, tile);
    if (side.bias == nullptr) continue;
    const int64_t first = (run.first + i) * kPanelWidth;
    const float* bias = side.bias + run.expert * d_out + first;
    add_bias(bias, block.n_rows, std::min(kPanelWidth, d_out - first), tile);
  }
}

void check_dispatch(const char* who, const Dispatch& dispatch, const PackedLinear& linear) {
  const auto& shape = linear.weight.shape;
  const auto& tokens = dispatch.token_of_row;
  const int64_t n_rows = tokens.defined() ? tokens.numel() : dispatch.offsets.back();
  TORCH_CHECK(!tokens.defined() || (tokens.dim() == 1 && tokens.scalar_type() == at::kLong &&
                                    tokens.is_contiguous()),
              who,
              ": expected token_of_row [n_rows] of int64");
  TORCH_CHECK(static_cast<int64_t>(dispatch.offsets.size()) == shape.n_experts + 1 &&
                  dispatch.offsets.front() == 0 && dispatch.offsets.back() == n_rows &&
                  std::is_sorted(dispatch.offsets.begin(), dispatch.offsets.end()),
              who,
              ": expected offsets of ",
              shape.n_experts,
              " experts that end at the number of rows, ",
              n_rows);
  TORCH_CHECK(!dispatch.weight_of_row.defined() ||
                  (dispatch.weight_of_row.dim() == 1 && dispatch.weight_of_row.size(0) == n_rows &&
                   dispatch.weight_of_row.scalar_type() == at::kFloat &&
                   dispatch.weight_of_row.is_contiguous()),
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

void check_tokens(const char* who, const Dispatch& dispatch, int64_t n_tokens) {
  if (!dispatch.token_of_row.defined()) {
    TORCH_CHECK(
        dispatch.offsets.back() == n_tokens, who, ": expected a row for each of ", n_tokens);
    return;
  }
  const auto* tokens = dispatch.token_of_row.const_data_ptr<int64_t>();
  const bool all_there = std::all_of(tokens, tokens + dispatch.offsets.back(), [&](int64_t token) {
    return token >= 0 && token < n_tokens;
  });
  TORCH_CHECK(all_there, who, ": expected tokens below ", n_tokens);
}

// Cuts an expert's panels into runs. The last ones of a region are single panels, so that its
// threads end together.
void add_runs(int64_t expert,
              int64_t n_panels,
              bool few_rows,
              bool is_last,
              std::vector<PanelRun>& runs) {
  const int64_t length = run_length(n_panels, few_rows);
  const int64_t n_single = is_last ? length * kernel_threads().n_threads() : 0;
  for (int64_t first = 0; first < n_panels;) {
    const int64_t left = n_panels - first;
    const int64_t count = left > n_single ? std::min(length, left) : 1;
    runs.push_back({expert, first, count});
    first += count;
  }
}

// The runs of every expert that has rows.
std::vector<PanelRun> list_runs(const PackedRows& rows, int64_t n_panels) {
  std::vector<PanelRun> runs;
  int64_t last = rows.n_experts() - 1;
  while (last > 0 && rows.blocks_of(last).empty()) --last;
  for (int64_t expert = 0; expert <= last; ++expert) {
    const size_t n_blocks = rows.blocks_of(expert).size();
    if (n_blocks > 0) add_runs(expert, n_panels, n_blocks == 1, expert == last, runs);
  }
  return runs;
}

// One call of expert_hidden: what its items share.
template <typename T>
struct HiddenRegion {
  const PackedRows& rows;
  Side up;
  Side gate;
  Activation activation;
  const float* weights;  // [n_rows], or null
  T* hidden;             // [n_rows, d_out]

  void fill(const PanelRun& run, const PanelRun& following) const {
    const bool gated = activation == Activation::kSwiglu;
    TileGroup up_tiles;
    TileGroup gate_tiles;
    bool is_cached = false;
    for (const auto& block : rows.blocks_of(run.expert)) {
      const auto* after_up = gated && !is_cached ? gate.panel(run) : up.panel(following);
      project(up, run, {after_up, is_cached}, block, up_tiles);
      const auto* after_gate = is_cached ? gate.panel(following) : up.panel(following);
      if (gated) project(gate, run, {after_gate, is_cached}, block, gate_tiles);
      for (int64_t i = 0; i < run.count; ++i) {
        const auto at = static_cast<size_t>(i);
        store(run.first + i, block, gate_tiles[at], up_tiles[at]);
      }
      is_cached = true;
    }
  }

  void store(int64_t panel, const PackedRows::Block& block, const Tile& gates, Tile& ups) const {
    const int64_t d_out = up.weight.shape.d_out;
    const int64_t first = panel * kPanelWidth;
    for (int64_t r = 0; r < block.n_rows; ++r) {
      const int64_t row = block.first_row + r;
      float* values = ups.data() + r * kPanelWidth;
      const float weight = weights == nullptr ? 1.0F : weights[row];
      panel_kernels().activate(activation, weight, gates.data() + r * kPanelWidth, values);
      row_kernels<T>().store(
          std::min(kPanelWidth, d_out - first), values, nullptr, hidden + row * d_out + first);
    }
  }
};

template <typename T>
void fill_hidden(const at::Tensor& x,
                 const Dispatch& dispatch,
                 const ExpertInput& input,
                 const at::Tensor& hidden) {
  const auto& shape = input.up.weight.shape;
  const auto* tokens = pointer<const int64_t>(dispatch.token_of_row);
  const PackedRows rows(shape.format,
                        RowSource<T>{pointer<const T>(x), shape.d_in, tokens, dispatch.offsets});
  const bool gated = input.activation == Activation::kSwiglu;
  const HiddenRegion<T> region{.rows = rows,
                               .up = Side(input.up),
                               .gate = Side(gated ? input.gate : input.up),
                               .activation = input.activation,
                               .weights = pointer<const float>(dispatch.weight_of_row),
                               .hidden = pointer<T>(hidden)};
  const auto runs = list_runs(rows, shape.n_panels());
  const auto n_runs = static_cast<int64_t>(runs.size());
  auto& threads = kernel_threads();
  threads.run(n_runs, [&](int64_t item, int) {
    // While all threads go on alike, this one's next item is n_threads on.
    const int64_t following = std::min(item + threads.n_threads(), n_runs - 1);
    region.fill(runs[static_cast<size_t>(item)], runs[static_cast<size_t>(following)]);
  });
}

// One call of expert_sum: what its items share.
template <typename T>
struct SumRegion {
  const PackedRows& rows;
  Side down;
  const int64_t* tokens;  // [n_rows], or null
  int64_t n_tokens;
  T* y;  // [n_tokens, d_out]

  // sums [run length, n_tokens, kPanelWidth]
  void fill(int64_t first, int64_t count, float* sums) const {
    std::fill_n(sums, count * n_tokens * kPanelWidth, 0.0F);
    std::vector<PanelRun> runs;
    for (int64_t expert = 0; expert < rows.n_experts(); ++expert) {
      if (!rows.blocks_of(expert).empty()) runs.push_back({expert, first, count});
    }
    for (size_t i = 0; i < runs.size(); ++i)
      add(runs[i], runs[std::min(i + 1, runs.size() - 1)], sums);
    for (int64_t i = 0; i < count; ++i) store(first + i, sums + i * n_tokens * kPanelWidth);
  }

  void add(const PanelRun& run, const PanelRun& following, float* sums) const {
    alignas(64) Tile tile;
    for (int64_t i = 0; i < run.count; ++i) {
      const auto* next = i + 1 < run.count ? down.panel(run, i + 1) : down.panel(following);
      bool is_cached = false;
      for (const auto& block : rows.blocks_of(run.expert)) {
        multiply(down, down.panel(run, i), {next, is_cached}, block, tile);
        is_cached = true;
        for (int64_t r = 0; r < block.n_rows; ++r) {
          const int64_t row = block.first_row + r;
          const int64_t token = tokens == nullptr ? row : tokens[row];
          float* sum = sums + (i * n_tokens + token) * kPanelWidth;
          row_kernels<float>().store(kPanelWidth, sum, tile.data() + r * kPanelWidth, sum);
        }
      }
    }
  }

  void store(int64_t panel, const float* sums) const {
    const int64_t d_out = down.weight.shape.d_out;
    const int64_t first = panel * kPanelWidth;
    const float* bias = down.bias == nullptr ? nullptr : down.bias + first;
    for (int64_t token = 0; token < n_tokens; ++token) {
      row_kernels<T>().store(std::min(kPanelWidth, d_out - first),
                             sums + token * kPanelWidth,
                             bias,
                             y + token * d_out + first);
    }
  }
};

template <typename T>
void fill_sum(const at::Tensor& hidden,
              const Dispatch& dispatch,
              const PackedLinear& down,
              const at::Tensor& y) {
  constexpr int64_t kFewTokens = 16;
  const auto& shape = down.weight.shape;
  const PackedRows rows(
      shape.format, RowSource<T>{pointer<const T>(hidden), shape.d_in, nullptr, dispatch.offsets});
  const SumRegion<T> region{.rows = rows,
                            .down = Side(down),
                            .tokens = pointer<const int64_t>(dispatch.token_of_row),
                            .n_tokens = y.size(0),
                            .y = pointer<T>(y)};
  auto& threads = kernel_threads();
  const int64_t n_panels = shape.n_panels();
  const bool few_tokens = y.size(0) <= kFewTokens;
  std::vector<PanelRun> runs;
  add_runs(0, n_panels, few_tokens, true, runs);
  const int64_t n_sums = run_length(n_panels, few_tokens) * y.size(0) * kPanelWidth;
  const auto scratch = at::empty({threads.n_threads(), n_sums}, at::kFloat);
  threads.run(static_cast<int64_t>(runs.size()), [&](int64_t item, int thread) {
    const auto& run = runs[static_cast<size_t>(item)];
    region.fill(run.first, run.count, scratch.data_ptr<float>() + thread * n_sums);
  });
}

}  // namespace

at::Tensor expert_hidden(const at::Tensor& x, const Dispatch& dispatch, const ExpertInput& input) {
  constexpr const char* kName = "expert_hidden";
  const auto& shape = input.up.weight.shape;
  check_dispatch(kName, dispatch, input.up);
  check_rows(kName, x, input.up, shape.n_experts * shape.d_out);
  check_tokens(kName, dispatch, x.size(0));
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
  auto hidden = at::empty({dispatch.offsets.back(), shape.d_out}, x.options());
  dispatch_row_types(
      kName, x.scalar_type(), [&]<typename T>() { fill_hidden<T>(x, dispatch, input, hidden); });
  return hidden;
}

at::Tensor expert_sum(const at::Tensor& hidden,
                      const Dispatch& dispatch,
                      const PackedLinear& down) {
  constexpr const char* kName = "expert_sum";
  check_dispatch(kName, dispatch, down);
  check_rows(kName, hidden, down, down.weight.shape.d_out);
  check_tokens(kName, dispatch, dispatch.n_tokens);
  auto y = at::empty({dispatch.n_tokens, down.weight.shape.d_out}, hidden.options());
  dispatch_row_types(
      kName, hidden.scalar_type(), [&]<typename T>() { fill_sum<T>(hidden, dispatch, down, y); });
  return y;
}

}  // namespace dsmoe
