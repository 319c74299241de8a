#pragma once

#include <ATen/core/Tensor.h>

#include "model/model_output.h"

namespace dsmoe {

/// A mixture layer's result.
struct MoeOutput {
  at::Tensor y;           // [batch, seq, d_model]
  RoutingRecord routing;  // of this call
};

}  // namespace dsmoe
