#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "infer/infer_bench.h"

namespace dsmoe {

/// `bench` without --train.
struct InferenceBenchCommand {
  std::string model;                   ///< a config with random weights, or a checkpoint
  std::vector<std::string> overrides;  ///< of the config, `section.key=value`
  InferBenchOptions options;
  std::string policy;  ///< empty: the training selection
  std::string execution = "auto";
  std::string dtype = "bfloat16";
  std::string device = "cpu";
  int threads = 0;
  bool json = false;
};

/// Measures and prints. Throws Error for what does not fit.
int bench_inference(const InferenceBenchCommand& command);

}  // namespace dsmoe
