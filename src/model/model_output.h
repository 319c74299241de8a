#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/model_config.h"

namespace dsmoe {

/// Routing of one mixture in one call; the input of router losses and usage statistics.
struct RoutingRecord {
  at::Tensor router_logits;  // [batch, seq, n_experts], float32, with gradient
  at::Tensor router_probs;   // [batch, seq, n_experts], float32, with gradient
  at::Tensor selected;       // [batch, seq, n_experts] bool
};

/// The output head: the parameter that collects the gradient, and its values in the compute dtype.
struct HeadWeight {
  at::Tensor parameter;  // [vocab_size, d_model]
  at::Tensor values;     // the same shape, without gradient
};

/// One forward pass. A model without experts of a kind leaves that list empty.
struct ModelOutput {
  at::Tensor logits;    // [batch, seq, vocab_size], in the compute dtype, if requested
  at::Tensor features;  // [batch, seq, d_model], the input of the head
  HeadWeight head;
  std::vector<RoutingRecord> moe;  // one per layer with FFN experts
  std::vector<RoutingRecord> moa;  // one per layer
  RouterActivation moe_activation =
      RouterActivation::kSoftmax;  // selects the losses that apply to moe
};

}  // namespace dsmoe
