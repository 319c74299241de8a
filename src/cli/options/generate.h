#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options/model_options.h"
#include "infer/sampler.h"

namespace dsmoe {

/// Options of `--prompts`.
struct PromptsOptions {
  std::string file;
  std::string field;             ///< key of the prompt in JSON lines; empty: "prompt"
  int64_t kv_budget_mib = 1024;  ///< of keys and values
  int64_t max_batch = 64;
  bool json_lines = false;
};

/// Arguments of `dsmoe generate`.
struct GenerateCommand {
  ModelOptions model;
  std::string prompt;
  std::string prompt_file;
  PromptsOptions prompts;
  int64_t max_tokens = 128;
  std::vector<std::string> stop;
  SamplingConfig sampling;
  std::string draft;  ///< policy; empty: no speculation
  int64_t draft_tokens = 4;
  int64_t n = 1;
  bool json = false;
};

}  // namespace dsmoe
