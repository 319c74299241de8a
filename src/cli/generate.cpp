#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "cli/command_support.h"
#include "cli/generate_prompts.h"
#include "cli/options/generate.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "data/text_lines.h"
#include "infer/engine.h"
#include "infer/prompt_file.h"
#include "model/moe/batch_dependence.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxPromptBytes = 1 << 26;

GenerateRequest request_of(const GenerateCommand& options) {
  return {.prompt = {},
          .max_tokens = options.max_tokens,
          .sampling = options.sampling,
          .stop = options.stop};
}

std::string prompt_text(const GenerateCommand& options) {
  return options.prompt_file.empty()
             ? options.prompt
             : read_text_file(posix_io(), options.prompt_file, kMaxPromptBytes);
}

double per_second(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

// Null where no time was measured.
nlohmann::ordered_json speed_json(int64_t tokens, double seconds) {
  return seconds > 0 ? nlohmann::ordered_json(per_second(tokens, seconds)) : nullptr;
}

EngineOptions engine_options(const GenerateCommand& options, const LoadedCheckpoint& loaded) {
  EngineOptions engine{.plan = loaded.plan,
                       .compute_dtype = loaded.compute_dtype,
                       .max_batch = options.n,
                       .stop = must_stop};
  if (options.draft.empty()) return engine;
  if (!loaded.model->device().is_cpu()) {
    throw Error(
        "--draft: expected --device cpu, where a checked draft has the bits of a plain one");
  }
  const auto& config = loaded.model->config();
  const auto execution = parse_execution(options.model.execution);
  engine.speculation = Speculation{.plan = parse_routing_plan(options.draft).with(execution),
                                   .n_tokens = options.draft_tokens};
  validate_plan(engine.speculation->plan, config);
  engine.continuous = true;
  engine.max_batch = 1;
  engine.prompt_chunk = (config.max_seq_len / kPromptBlock + 1) * kPromptBlock;  // at once
  return engine;
}

void print_result(const GenerateCommand& options,
                  const Generation& result,
                  const LoadedCheckpoint& loaded) {
  const auto& [completions, stats] = result;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& completion : completions) {
    list.push_back(completion_json(completion));
  }
  nlohmann::ordered_json json = {
      {"completions", list},
      {"prompt_tokens", stats.prompt_tokens},
      {"generated_tokens", stats.generated_tokens},
      {"prefill_tokens_per_second", speed_json(stats.prompt_tokens, stats.prefill_seconds)},
      {"decode_tokens_per_second", speed_json(stats.decode_tokens, stats.decode_seconds)},
      {"dtype", loaded.dtype},
      {"depends_on_batch", depends_on_batch(loaded.plan, loaded.model->config())},
      {"seconds_to_first_token", stats.prefill_seconds},
      {"active_experts", active_experts_json(stats.usage.active_experts())}};
  if (!options.draft.empty()) {
    json["drafted_tokens"] = stats.drafted_tokens;
    json["accepted_tokens"] = stats.accepted_tokens;
  }
  add_load_json(json, loaded.load_seconds, loaded_bytes(loaded.model));
  print_json(json);
}

}  // namespace

int run_generate(const GenerateCommand& options) {
  options.sampling.validate();
  auto model_options = options.model;
  const bool needs_packed_weights = !options.prompts.file.empty() || !options.draft.empty();
  if (needs_packed_weights && model_options.device == "auto") model_options.device = "cpu";
  auto loaded = load_checkpoint(model_options);
  if (!options.prompts.file.empty()) {
    return generate_prompts({.options = options.prompts,
                             .defaults = request_of(options),
                             .n = options.n,
                             .json = options.json},
                            loaded);
  }
  auto requests = std::vector<GenerateRequest>(static_cast<size_t>(options.n), request_of(options));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = encode_prompt(prompt_text(options), *loaded.tokenizer);
    requests[i].draw = static_cast<int64_t>(i);
  }
  // Several completions at once would interleave: they are printed when all are done.
  const bool stream = !options.json && options.n == 1;
  auto engine = engine_options(options, loaded);
  if (stream) {
    // The prompt comes with the first text: a refused prompt prints nothing.
    engine.on_text = [prompt = options.prompt](size_t, const std::string& text) mutable {
      standard_output().write_generated(std::exchange(prompt, "") + text);
    };
  }
  install_stop_signal();
  const auto result = generate(loaded.model, *loaded.tokenizer, engine, requests);
  const auto& [completions, stats] = result;
  if (options.json) {
    print_result(options, result, loaded);
  } else if (stream) {
    standard_output().write("\n");
  } else {
    for (size_t i = 0; i < completions.size(); ++i) {
      print_out("--- {}\n", i + 1);
      standard_output().write_generated(options.prompt + completions[i].text + "\n");
    }
  }
  print_note(fmt::format("{} tokens, {:.1f} per second, {} weights\n",
                         stats.generated_tokens,
                         per_second(stats.decode_tokens, stats.decode_seconds),
                         loaded.dtype));
  if (!options.draft.empty()) {
    print_note(fmt::format(
        "{} of {} drafted tokens were accepted\n", stats.accepted_tokens, stats.drafted_tokens));
  }
  return stop_requested() ? kExitStopped : 0;
}

}  // namespace dsmoe
