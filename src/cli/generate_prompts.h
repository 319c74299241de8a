#pragma once

#include <string>

#include "cli/command_support.h"
#include "infer/sequence.h"

namespace dsmoe {

/// What `generate --prompts` is asked to do.
struct PromptsCommand {
  std::string file;
  std::string field;             ///< key of the prompt in JSON lines; empty: "prompt"
  GenerateRequest defaults;      ///< of requests that do not say otherwise
  int64_t n = 1;                 ///< completions of each prompt
  int64_t kv_budget_mib = 1024;  ///< of keys and values
  int64_t max_batch = 64;
  bool json = false;
  bool json_lines = false;
};

/// Runs all prompts through one engine; prints completions in the order given, or as JSON
/// lines as they end. A prompt that cannot be run is reported in its place and the others are run.
/// Returns the exit status; throws RunError after the output if some prompts failed, Error before
/// it if all did.
int generate_prompts(const PromptsCommand& command, LoadedCheckpoint& loaded);

/// True once a stop was asked for or what is generated can no longer be printed.
bool must_stop();

/// `{"text", "ids", "finish_reason"}`.
nlohmann::ordered_json completion_json(const Completion& completion);

}  // namespace dsmoe
