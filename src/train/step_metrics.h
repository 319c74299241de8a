#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/expert_watch.h"
#include "train/losses.h"

namespace dsmoe {

/// The numbers of one optimizer step, and of the interval that ended with it.
struct StepMetrics {
  int64_t step = 0;    ///< steps done, from 1
  int64_t tokens = 0;  ///< consumed since the start of the run
  double loss = 0;     ///< total, nats
  std::vector<LossTerm> loss_terms;
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  double tokens_per_second = 0;
  double flops_per_second = 0;  ///< of all ranks; the model's operations, see flops.h
  std::optional<double> mfu;    ///< flops_per_second over the peak; none: no peak is known
  int64_t peak_memory_bytes = 0;
  /// Most that tensors held at once on the device in the interval; none on the CPU.
  std::optional<int64_t> device_memory_bytes;
  int64_t skipped_steps = 0;  ///< updates dropped since the start of the run
  RoutingStats routing;       ///< of the interval
};

/// One validation of a run under one policy.
struct ValidationScore {
  std::string policy;  ///< as in the config; the training selection where that names none
  double loss = 0;     ///< nats per token
  std::optional<double> bits_per_byte = {};  ///< none where the size of the text is not known
  double active_parameters = 0;              ///< not in embeddings, mean over the tokens
  double active_share = 0;                   ///< of all parameters that are not in embeddings
  double perplexity() const;
};

}  // namespace dsmoe
