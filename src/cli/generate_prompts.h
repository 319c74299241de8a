#pragma once

#include <string>

#include "cli/command_support.h"
#include "cli/options/generate.h"
#include "infer/sequence.h"

namespace dsmoe {

/// What `generate --prompts` is asked to do.
struct PromptsCommand {
  PromptsOptions options;
  GenerateRequest defaults;  ///< of requests that do not say otherwise
  int64_t n = 1;             ///< completions of each prompt
  bool json = false;
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
