#include "support/emulated_kernels.h"

#include "csrc_kernels/decode_attention/body.h"
#include "csrc_kernels/dispatch/body.h"
#include "csrc_kernels/expert_gemv/body.h"
#include "csrc_kernels/linear_cross_entropy/body.h"
#include "csrc_kernels/mutual_information/body.h"
#include "csrc_kernels/residual_norm/body.h"
#include "csrc_kernels/rotary/body.h"
#include "csrc_kernels/router/backward_body.h"
#include "csrc_kernels/router/tile_body.h"
#include "csrc_kernels/token_choice/body.h"
#include "csrc_kernels/weighted_activation/body.h"
#include "support/emulated_device.h"

namespace dsmoe {
namespace {

template <Activation kActivation, typename T, typename W>
void run_activation(const WeightedActivationRows<T, W>& rows) {
  emulated::run_sequential(device::weighted_activation_shape(rows), [&](auto& ctx) {
    device::weighted_activation_body<kActivation>(ctx, rows);
  });
}

template <Activation kActivation, typename T, typename W>
void run_activation(const WeightedActivationRows<T, W>& rows,
                    const WeightedActivationGradients<T, W>& gradients) {
  emulated::run_sequential(device::weighted_activation_shape(rows), [&](auto& ctx) {
    device::weighted_activation_backward_body<kActivation>(ctx, rows, gradients);
  });
}

// Forward, or backward where gradients follow the rows.
template <typename... Arguments>
void weighted_activation(Activation activation, const Arguments&... arguments) {
  switch (activation) {
    case Activation::kIdentity:
      return run_activation<Activation::kIdentity>(arguments...);
    case Activation::kGelu:
      return run_activation<Activation::kGelu>(arguments...);
    case Activation::kGeluTanh:
      return run_activation<Activation::kGeluTanh>(arguments...);
    case Activation::kSwiglu:
      return run_activation<Activation::kSwiglu>(arguments...);
    case Activation::kSilu:
      return run_activation<Activation::kSilu>(arguments...);
    case Activation::kQuickGelu:
      return run_activation<Activation::kQuickGelu>(arguments...);
    case Activation::kReluSquared:
      return run_activation<Activation::kReluSquared>(arguments...);
  }
}

template <typename T, typename W>
void residual_norm(NormKind kind, const ResidualNormRows<T, W>& rows) {
  emulated::run_sequential(device::residual_norm_shape(rows), [&](auto& ctx) {
    if (kind == NormKind::kRmsNorm)
      return device::residual_norm_body<NormKind::kRmsNorm>(ctx, rows);
    device::residual_norm_body<NormKind::kLayerNorm>(ctx, rows);
  });
}

template <typename T, typename W>
void residual_norm_backward(NormKind kind,
                            const ResidualNormRows<T, W>& rows,
                            const ResidualNormGradients<T, W>& gradients) {
  emulated::run_sequential(device::residual_norm_backward_shape(rows), [&](auto& ctx) {
    if (kind == NormKind::kRmsNorm) {
      return device::residual_norm_backward_body<NormKind::kRmsNorm>(ctx, rows, gradients);
    }
    device::residual_norm_backward_body<NormKind::kLayerNorm>(ctx, rows, gradients);
  });
}

template <typename T, typename W>
void router(const RouterTable<T, W>& table) {
  if (device::routes_row_by_row(table)) {
    return emulated::run_sequential(device::router_row_shape(table),
                                    [&](auto& ctx) { device::router_row_body(ctx, table); });
  }
  emulated::run_sequential(device::router_tile_shape(table),
                           [&](auto& ctx) { device::router_tile_body(ctx, table); });
}

template <typename T, typename W>
void router_backward(const RouterTable<T, W>& table, const RouterGradients<T, W>& gradients) {
  emulated::run_sequential(device::router_backward_shape(table),
                           [&](auto& ctx) { device::router_backward_body(ctx, table, gradients); });
}

template <typename T, typename W>
void rotary(const RotaryRows<T, W>& rows, W direction) {
  emulated::run_sequential(device::rotary_shape(rows),
                           [&](auto& ctx) { device::rotary_body(ctx, rows, direction); });
}

template <typename T>
void cross_entropy(const CrossEntropyRows<T>& rows, double grad_scale, double* losses) {
  emulated::run_sequential(device::cross_entropy_shape(rows), [&](auto& ctx) {
    device::cross_entropy_body(ctx, rows, grad_scale, losses);
  });
}

template <typename W>
void mutual_information_sums(const RouterRows<W>& rows, double* sums) {
  emulated::run_sequential(device::mutual_information_sums_shape(rows), [&](auto& ctx) {
    device::mutual_information_sums_body(ctx, rows, sums);
  });
}

template <typename W>
void mutual_information_backward(const RouterRows<W>& rows,
                                 const W* log_mean,
                                 const W* factor,
                                 W* grad_logits) {
  emulated::run_sequential(device::mutual_information_backward_shape(rows), [&](auto& ctx) {
    device::mutual_information_backward_body(ctx, rows, log_mean, factor, grad_logits);
  });
}

template <typename T>
void expert_gemv_hidden(Activation activation, const GemvHidden<T>& args) {
  emulated::run_sequential(device::expert_gemv_hidden_shape(args), [&](auto& ctx) {
    if (args.n_tokens == 1) return device::expert_gemv_hidden_body<1>(ctx, activation, args);
    device::expert_gemv_hidden_body<kMostGemvTokens>(ctx, activation, args);
  });
}

template <typename T>
void expert_gemv_sum(const GemvSum<T>& args) {
  emulated::run_sequential(device::expert_gemv_sum_shape(args), [&](auto& ctx) {
    if (args.n_tokens == 1) return device::expert_gemv_sum_body<1>(ctx, args);
    device::expert_gemv_sum_body<kMostGemvTokens>(ctx, args);
  });
}

template <typename T>
void decode_append(const DecodeAppend<T>& args) {
  emulated::run_sequential(device::decode_append_shape(args),
                           [&](auto& ctx) { device::decode_append_body(ctx, args); });
}

template <typename T>
void decode_attention(const DecodeAttention<T>& args) {
  emulated::run_sequential(device::decode_tiles_shape(args),
                           [&](auto& ctx) { device::decode_tiles_body(ctx, args); });
  emulated::run_sequential(device::decode_join_shape(args),
                           [&](auto& ctx) { device::decode_join_body(ctx, args); });
}

template <typename T>
void install_inference() {
  device_kernels<DecodeAttentionKernels<T>>() = {decode_append<T>, decode_attention<T>};
  device_kernels<ExpertGemvKernels<T>>().hidden = expert_gemv_hidden<T>;
  device_kernels<ExpertGemvKernels<T>>().sum = expert_gemv_sum<T>;
}

void choose(const ChoiceRows& rows) {
  emulated::run_sequential(device::count_above_shape(rows),
                           [&](auto& ctx) { device::count_above_body(ctx, rows); });
  emulated::run_sequential(device::choose_shape(rows),
                           [&](auto& ctx) { device::choose_body(ctx, rows); });
}

// The scan is CUB's on a GPU.
void list_rows(const RowLists& lists) {
  int32_t count = 0;
  for (int64_t i = 0; i < lists.n_experts * lists.n_tokens; ++i) {
    count += device::is_marked(lists, i) ? 1 : 0;
    lists.row_of_pair[i] = count;
  }
  emulated::run_sequential(device::list_rows_shape(lists),
                           [&](auto& ctx) { device::list_rows_body(ctx, lists); });
}

void list_slots(const SlotLists& lists) {
  emulated::run_sequential(device::list_slots_shape(lists),
                           [&](auto& ctx) { device::list_slots_body(ctx, lists); });
}

template <typename T>
void dispatch_rows(const MovedRows<T>& rows) {
  emulated::run_sequential(device::dispatch_rows_shape(rows),
                           [&](auto& ctx) { device::dispatch_rows_body(ctx, rows); });
}

template <typename T>
void combine_rows(const MovedRows<T>& rows) {
  emulated::run_sequential(device::combine_rows_shape(rows),
                           [&](auto& ctx) { device::combine_rows_body(ctx, rows); });
}

template <typename T>
void install_rows() {
  device_kernels<MoveRowsKernels<T>>().dispatch = dispatch_rows<T>;
  device_kernels<MoveRowsKernels<T>>().combine = combine_rows<T>;
}

template <typename W>
void install_wide() {
  device_kernels<MutualInformationKernels<W>>() = {mutual_information_sums<W>,
                                                   mutual_information_backward<W>};
}

template <typename T, typename W>
void install() {
  device_kernels<ResidualNormKernels<T, W>>() = {residual_norm<T, W>, residual_norm_backward<T, W>};
  device_kernels<RouterKernels<T, W>>().forward = router<T, W>;
  device_kernels<RouterKernels<T, W>>().backward = router_backward<T, W>;
  device_kernels<RotaryKernels<T, W>>() = {rotary<T, W>};
  device_kernels<CrossEntropyKernels<T>>() = {cross_entropy<T>};
  using ActivationRows = WeightedActivationRows<T, W>;
  using ActivationGradients = WeightedActivationGradients<T, W>;
  device_kernels<WeightedActivationKernels<T, W>>().forward = weighted_activation<ActivationRows>;
  device_kernels<WeightedActivationKernels<T, W>>().backward =
      weighted_activation<ActivationRows, ActivationGradients>;
}

}  // namespace

void install_emulated_kernels() {
  install<Bfloat16, float>();
  install<float, float>();
  install<double, double>();
  install_wide<float>();
  install_wide<double>();
  install_inference<Bfloat16>();
  install_inference<float>();
  install_rows<Bfloat16>();
  install_rows<float>();
  device_kernels<TokenChoiceKernels>().choose = choose;
  device_kernels<DispatchKernels>().list = list_rows;
  device_kernels<DispatchKernels>().list_slots = list_slots;
  device_kernels<DispatchKernels>().workspace_bytes = [](int64_t) { return int64_t{0}; };
}

}  // namespace dsmoe
