#pragma once

#include <array>

#include "csrc_kernels/common/routing_rule.h"

namespace dsmoe {

enum class RouterKind { kLinear, kSwiglu, kMlp };

/// A router is an optional hidden layer and a matrix [n_experts, d_hidden or d_model]. Modules,
/// parameter counts, config keys and exports are derived from the row.
struct RouterKindRow {
  RouterKind kind;
  const char* name;  ///< value of the key router.kind
  const char* doc;
  Activation hidden;  ///< of the layer [d_hidden, d_model], two for kSwiglu; kIdentity: no layer
};

constexpr std::array kRouterKinds = {
    RouterKindRow{RouterKind::kLinear, "linear", "one matrix", Activation::kIdentity},
    RouterKindRow{RouterKind::kSwiglu, "swiglu", "a SwiGLU layer, one matrix", Activation::kSwiglu},
    RouterKindRow{RouterKind::kMlp, "mlp", "a GELU layer, one matrix", Activation::kGelu},
};

constexpr const RouterKindRow& row_of(RouterKind kind) {
  return kRouterKinds.at(static_cast<size_t>(kind));
}

}  // namespace dsmoe
