#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// What one mixture did in one call: what losses and usage statistics are computed from.
struct RoutingRecord {
  at::Tensor router_logits;  // [batch, seq, n_experts], float32, with gradient
  at::Tensor router_probs;   // [batch, seq, n_experts], float32, with gradient
  at::Tensor selected;       // [batch, seq, n_experts] bool
};

/// One forward pass. A model without experts of a kind leaves that list empty.
struct ModelOutput {
  at::Tensor logits;               // [batch, seq, vocab_size], in the compute dtype
  std::vector<RoutingRecord> moe;  // one per layer
  std::vector<RoutingRecord> moa;  // one per layer
};

}  // namespace dsmoe
