#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "common/device_module.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

/// Decoding passes of one token per sequence. On a GPU a pass without a host sync is recorded as a
/// CUDA graph and replayed from then on, because small kernels take longer to start than to run.
class DecodeSteps {
 public:
  DecodeSteps(Transformer model, RoutingPlan plan, at::ScalarType compute_dtype);

  /// One forward pass: the next token of every sequence of the cache, which grows by it. The
  /// output, logits [batch, 1, vocab_size] among it, is overwritten by the next step.
  const ModelOutput& run(const std::vector<int64_t>& tokens, KvCache& cache);

  /// Whether the last step was a replay.
  bool is_recorded() const { return graph_ != nullptr; }

 private:
  void forward(KvCache& cache);
  bool can_record(KvCache& cache) const;

  Transformer model_;
  RoutingPlan plan_;
  at::ScalarType compute_dtype_;
  // [kSlots, 2, batch] tokens and positions of a step, in turn, pinned where the device copies by
  // itself; inputs_ is one slot on the device.
  at::Tensor host_;
  at::Tensor inputs_;
  int64_t slot_ = 0;
  uint64_t recorded_storage_ = 0;
  int64_t n_eager_ = 0;  // steps over this cache before the recording
  std::unique_ptr<DeviceGraph> graph_;
  ModelOutput output_;
};

}  // namespace dsmoe
