#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/expert_usage.h"
#include "model/moe/routing_plan.h"
#include "model/packed_weights.h"
#include "model/transformer.h"

namespace dsmoe {

/// Size of the measurement: prompts of random tokens, then steps of one random token per sequence.
struct InferBenchOptions {
  int64_t prompt = 128;   ///< tokens of the prompt that is timed; 0: no prompt
  int64_t generate = 64;  ///< steps that are timed; 0: none
  int64_t depth = 0;      ///< tokens in the cache before either
  int64_t batch = 1;      ///< sequences at once
  int64_t repetitions = 5;
  int64_t warmup = 1;             ///< repetitions before these
  bool measure_bandwidth = true;  ///< around each repetition; else the rounds have 0
  RoutingPlan plan{RoutingPolicy::all()};
  at::ScalarType compute_dtype = at::kFloat;
  /// Waits until the model's device has finished its work; empty on the CPU.
  std::function<void()> wait = {};
};

/// One repetition; bandwidth was measured right before and right after it.
struct InferBenchRound {
  double prefill_seconds = 0;
  double decode_seconds = 0;
  double bandwidth_before = 0;  ///< bytes per second
  double bandwidth_after = 0;

  double bandwidth() const { return 0.5 * (bandwidth_before + bandwidth_after); }
};

struct InferBenchResult {
  std::vector<InferBenchRound> rounds;
  ActiveExperts active;  ///< experts per token of the timed steps; on a device of the last one

  double least_decode_seconds() const;  ///< of a round; infinite without one
};

/// Times a model with packed weights, or a model on a device. Decode steps are DecodeSteps, which the
/// Engine runs too, on random tokens: with random weights drawn tokens soon repeat, and repeated
/// tokens read fewer experts. Sampling and text are left out. tests/infer/engine_bench.cpp compares:
/// whole steps of the Engine took 1.02 (policy all) and 1.10 times as long (top_k=1) at d_model 512.
InferBenchResult run_infer_bench(Transformer& model, const InferBenchOptions& options);

/// Bytes of the weights that one token reads with `active` experts: the head and the matrices in
/// the format (int8 with its scales), routers and the rest as float32; no padding.
double weight_bytes_per_token(const ModelConfig& config,
                              PackedFormat format,
                              const ActiveExperts& active);

}  // namespace dsmoe
