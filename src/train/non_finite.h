#pragma once

#include <optional>
#include <string>

#include "data/batch.h"
#include "model/named_tensors.h"
#include "model/transformer.h"

namespace dsmoe {

/// Where a NaN or Inf first appears.
struct NonFiniteOrigin {
  std::string stage;   ///< `weights`, `forward` or `gradients`
  std::string tensor;  ///< the parameter, if it is one
  std::optional<int64_t> layer;
  std::string kind;  ///< `moe` or `moa` if it is in experts, else empty
  std::optional<int64_t> expert;

  /// `first in the weights of 'blocks_1.moe.experts.up_proj.weight' (layer 1, moe expert 3)`
  std::string to_string() const;
};

/// Looks for the origin of a non-finite loss or gradient, in this order: a weight; the forward pass
/// without dropout; the gradient nearest to the loss. In the forward pass it finds the first layer
/// with a non-finite router input and switches off its experts one by one until the pass is finite.
/// Empty if all of these are finite, for example if dropout was the cause. Costs a forward pass per
/// expert: call it after a failure only. Restores the weights.
std::optional<NonFiniteOrigin> locate_non_finite(Transformer& model,
                                                 const Batch& batch,
                                                 const RoutingPlan& plan,
                                                 const ForwardOptions& options);

}  // namespace dsmoe
