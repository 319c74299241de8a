#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dsmoe {

/// Arguments of `dsmoe bench`.
struct BenchCommand {
  std::vector<std::string> configs;
  std::vector<std::string> overrides;
  int64_t warmup = 3;        ///< uncounted steps of every config
  int64_t repetitions = 10;  ///< counted steps of every config
  int64_t prompt = 128;      ///< tokens of the prompt that is timed; 0: no prompt
  int64_t generate = 64;     ///< steps that are timed; 0: none
  int64_t depth = 0;         ///< tokens in the cache before either
  int64_t batch = 1;         ///< sequences at once
  std::string policy;        ///< empty: the training selection
  std::string execution = "auto";
  std::string dtype = "bfloat16";
  std::string device;  ///< empty: the configs' own
  int threads = 0;
  bool train = false;
  bool sampler = false;
  bool no_memory = false;
  bool memory_only = false;
  bool print_config = false;
  bool json = false;
};

}  // namespace dsmoe
