#include "csrc_kernels/dispatch/dispatch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename T>
MovedRows<T> moved(const at::Tensor& from, const at::Tensor& to, const Dispatch& rows) {
  return {.n_tokens = rows.row_of_pair.size(1),
          .n_experts = rows.row_of_pair.size(0),
          .max_rows = rows.token_of_row.size(0),
          .width = from.size(1),
          .row_of_pair = pointer<const int32_t>(rows.row_of_pair),
          .token_of_row = pointer<const int32_t>(rows.token_of_row),
          .from = pointer<const T>(from),
          .to = pointer<T>(to)};
}

at::Tensor dispatch_on_device(const at::Tensor& x, const Dispatch& rows) {
  if (!has_dispatch_kernels(x)) return dispatch_rows_ref(x, rows);
  auto result = at::empty({rows.token_of_row.size(0), x.size(1)}, x.options());
  dispatch_row_types("dispatch_rows", x.scalar_type(), [&]<typename T>() {
    device_kernels<MoveRowsKernels<T>>().dispatch(moved<T>(x, result, rows));
  });
  return result;
}

at::Tensor combine_on_device(const at::Tensor& y, const Dispatch& rows) {
  if (!has_dispatch_kernels(y)) return combine_rows_ref(y, rows);
  auto result = at::empty({rows.row_of_pair.size(1), y.size(1)}, y.options());
  dispatch_row_types("combine_rows", y.scalar_type(), [&]<typename T>() {
    device_kernels<MoveRowsKernels<T>>().combine(moved<T>(y, result, rows));
  });
  return result;
}

// Dispatching and combining are each other's gradient.
template <auto forward_of, auto backward_of>
struct MoveRows : torch::autograd::Function<MoveRows<forward_of, backward_of>> {
  static Dispatch rows_of(const at::Tensor& row_of_pair, const at::Tensor& token_of_row) {
    Dispatch rows{.n_tokens = row_of_pair.size(1)};
    rows.row_of_pair = row_of_pair;
    rows.token_of_row = token_of_row;
    return rows;
  }
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& from,
                            const at::Tensor& row_of_pair,
                            const at::Tensor& token_of_row) {
    ctx->save_for_backward({row_of_pair, token_of_row});
    return forward_of(from, rows_of(row_of_pair, token_of_row));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {backward_of(grads[0].contiguous(), rows_of(saved[0], saved[1])), {}, {}};
  }
};

struct GatherWeights : torch::autograd::Function<GatherWeights> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& weights,
                            const at::Tensor& row_of_pair,
                            const at::Tensor& token_of_row,
                            const at::Tensor& expert_of_row) {
    ctx->save_for_backward({row_of_pair});
    if (weights.numel() == 0) return at::zeros({token_of_row.size(0)}, weights.options());
    const auto places = token_of_row.clamp_min(0) * weights.size(1) + expert_of_row.clamp_min(0);
    return weights.reshape({-1}).index_select(0, places).masked_fill(token_of_row.lt(0), 0);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto rows = ctx->get_saved_variables()[0].t();  // [n_tokens, n_experts]
    const auto taken = grads[0].index_select(0, rows.clamp_min(0).reshape({-1})).view(rows.sizes());
    return {taken.masked_fill(rows.lt(0), 0), {}, {}, {}};
  }
};

void check_rows(const char* name, const at::Tensor& x, int64_t n_rows) {
  TORCH_CHECK(x.dim() == 2 && x.size(0) == n_rows && x.is_contiguous(),
              name,
              ": expected [",
              n_rows,
              ", d], contiguous, got ",
              x.sizes());
}

void check_selected(const char* name, const at::Tensor& selected) {
  TORCH_CHECK(selected.dim() == 2 && selected.scalar_type() == at::kBool,
              name,
              ": expected selected [n_tokens, n_experts] bool, got ",
              selected.sizes());
}

}  // namespace

bool has_dispatch_kernels(const at::Tensor& x) {
  return !x.is_cpu() && device_kernels<DispatchKernels>().list != nullptr &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

Dispatch list_on_host(const at::Tensor& selected, const at::Tensor& weights, bool every_pair) {
  check_selected("list_on_host", selected);
  TORCH_CHECK(weights.sizes() == selected.sizes(),
              "list_on_host: expected weights ",
              selected.sizes(),
              ", got ",
              weights.sizes());
  const auto on_host = selected.cpu().contiguous();
  const auto* marks = on_host.const_data_ptr<bool>();
  const int64_t n_tokens = selected.size(0);
  const int64_t n_experts = selected.size(1);
  const int64_t n_rows =
      every_pair ? selected.numel() : std::count(marks, marks + selected.numel(), true);
  // Read here where autograd need not see it.
  const bool reads = weights.is_cpu() && weights.scalar_type() == at::kFloat &&
                     weights.is_contiguous() && !weights.requires_grad();
  Dispatch rows{.n_tokens = n_tokens, .offsets = {0}};
  rows.token_of_row = at::empty({n_rows}, at::kLong);
  rows.expert_of_row = at::empty({n_rows}, at::kLong);
  if (reads) rows.weight_of_row = at::empty({n_rows}, at::kFloat);
  auto* token_of_row = rows.token_of_row.data_ptr<int64_t>();
  auto* expert_of_row = rows.expert_of_row.data_ptr<int64_t>();
  const auto* from = reads ? weights.const_data_ptr<float>() : nullptr;
  auto* weight_of_row = reads ? rows.weight_of_row.data_ptr<float>() : nullptr;
  int64_t row = 0;
  for (int64_t e = 0; e < n_experts; ++e) {
    for (int64_t t = 0; t < n_tokens; ++t) {
      const int64_t at = t * n_experts + e;
      if (!every_pair && !marks[at]) continue;
      token_of_row[row] = t;
      expert_of_row[row] = e;
      if (reads) weight_of_row[row] = from[at];
      ++row;
    }
    rows.offsets.push_back(row);
  }
  if (reads) return rows;
  rows.token_of_row = rows.token_of_row.to(selected.device());
  rows.expert_of_row = rows.expert_of_row.to(selected.device());
  rows.weight_of_row =
      weights.reshape({-1}).index_select(0, rows.token_of_row * n_experts + rows.expert_of_row);
  return rows;
}

Dispatch list_rows(const at::Tensor& selected, int64_t max_rows) {
  check_selected("list_rows", selected);
  TORCH_CHECK(max_rows >= 0 && selected.numel() < std::numeric_limits<int32_t>::max(),
              "list_rows: expected less than 2^31 pairs, got ",
              selected.sizes());
  if (selected.is_cpu() || device_kernels<DispatchKernels>().list == nullptr ||
      selected.numel() == 0) {
    return list_rows_ref(selected, max_rows);
  }
  const auto marks = selected.contiguous();
  const auto numbers = selected.options().dtype(at::kInt);
  Dispatch rows{.n_tokens = selected.size(0),
                .token_of_row = at::full({max_rows}, -1, numbers),
                .expert_of_row = at::full({max_rows}, -1, numbers),
                .ends = at::empty({selected.size(1)}, numbers),
                .row_of_pair = at::empty({selected.size(1), selected.size(0)}, numbers)};
  const auto workspace =
      at::empty({device_kernels<DispatchKernels>().workspace_bytes(selected.numel())},
                selected.options().dtype(at::kByte));
  device_kernels<DispatchKernels>().list({.n_tokens = selected.size(0),
                                          .n_experts = selected.size(1),
                                          .max_rows = max_rows,
                                          .selected = pointer<const bool>(marks),
                                          .row_of_pair = pointer<int32_t>(rows.row_of_pair),
                                          .token_of_row = pointer<int32_t>(rows.token_of_row),
                                          .expert_of_row = pointer<int32_t>(rows.expert_of_row),
                                          .ends = pointer<int32_t>(rows.ends),
                                          .workspace = workspace.data_ptr()});
  return rows;
}

at::Tensor dispatch_rows(const at::Tensor& x, const Dispatch& rows) {
  if (!rows.row_of_pair.defined()) return x.index_select(0, rows.token_of_row);
  check_rows("dispatch_rows", x, rows.row_of_pair.size(1));
  return MoveRows<dispatch_on_device, combine_on_device>::apply(
      x, rows.row_of_pair, rows.token_of_row);
}

at::Tensor combine_rows(const at::Tensor& y, const Dispatch& rows, const at::Tensor& bias) {
  const auto dtype = y.scalar_type();
  if (!rows.row_of_pair.defined()) {
    const auto wide = dtype == at::kDouble ? y : y.to(at::kFloat);
    const auto sum =
        at::zeros({rows.n_tokens, y.size(1)}, wide.options()).index_add(0, rows.token_of_row, wide);
    return (bias.defined() ? sum + bias : sum).to(dtype);
  }
  check_rows("combine_rows", y, rows.token_of_row.size(0));
  const auto sum = MoveRows<combine_on_device, dispatch_on_device>::apply(
      y, rows.row_of_pair, rows.token_of_row);
  return bias.defined() ? sum + bias.to(dtype) : sum;
}

Dispatch list_slots(const Dispatch& rows, int64_t most) {
  const int64_t n_tokens = rows.row_of_pair.size(1);
  TORCH_CHECK(most >= 0 && n_tokens * most < std::numeric_limits<int32_t>::max(),
              "list_slots: expected less than 2^31 slots, got ",
              most,
              " for each of ",
              n_tokens,
              " tokens");
  if (rows.row_of_pair.is_cpu() || device_kernels<DispatchKernels>().list_slots == nullptr) {
    return list_slots_ref(rows, most);
  }
  const auto numbers = rows.row_of_pair.options();
  Dispatch slots{.n_tokens = n_tokens * most,
                 .token_of_row = at::full({rows.token_of_row.size(0)}, -1, numbers),
                 .row_of_pair = at::empty({1, n_tokens * most}, numbers)};
  device_kernels<DispatchKernels>().list_slots(
      {.n_tokens = n_tokens,
       .n_experts = rows.row_of_pair.size(0),
       .most = most,
       .row_of_pair = pointer<const int32_t>(rows.row_of_pair),
       .row_of_slot = pointer<int32_t>(slots.row_of_pair),
       .slot_of_row = pointer<int32_t>(slots.token_of_row)});
  return slots;
}

at::Tensor gather_weights(const at::Tensor& weights, const Dispatch& rows) {
  check_rows("gather_weights", weights, rows.row_of_pair.size(1));
  return GatherWeights::apply(weights, rows.row_of_pair, rows.token_of_row, rows.expert_of_row);
}

}  // namespace dsmoe
