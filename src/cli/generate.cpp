#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "cli/generate_prompts.h"
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

struct Options {
  ModelOptions model;
  std::string prompt;
  std::string prompt_file;
  GenerateRequest request;
  PromptsCommand prompts;
  std::string draft;  // policy; empty: no speculation
  int64_t draft_tokens = 4;
  int64_t n = 1;
  bool json = false;
};

std::string prompt_text(const Options& options) {
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

EngineOptions engine_options(const Options& options, const LoadedCheckpoint& loaded) {
  EngineOptions engine{.plan = loaded.plan,
                       .compute_dtype = loaded.compute_dtype,
                       .max_batch = options.n,
                       .stop = must_stop};
  if (options.draft.empty()) return engine;
  if (!loaded.model->device().is_cpu()) {
    throw Error("--draft: expected --device cpu, whose kernels alone check guesses bit for bit");
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

void print_result(const Options& options,
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

int run_generate(const Options& options) {
  options.request.sampling.validate();
  auto model_options = options.model;
  const bool needs_packed_weights = !options.prompts.file.empty() || !options.draft.empty();
  if (needs_packed_weights && model_options.device == "auto") model_options.device = "cpu";
  auto loaded = load_checkpoint(model_options);
  if (!options.prompts.file.empty()) {
    auto command = options.prompts;
    command.defaults = options.request;
    command.n = options.n;
    command.json = options.json;
    return generate_prompts(command, loaded);
  }
  auto requests = std::vector<GenerateRequest>(static_cast<size_t>(options.n), options.request);
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
  print_note(fmt::format("{} tokens, {:.1f} per second\n",
                         stats.generated_tokens,
                         per_second(stats.decode_tokens, stats.decode_seconds)));
  if (!options.draft.empty()) {
    print_note(
        fmt::format("{} of {} guesses were right\n", stats.accepted_tokens, stats.drafted_tokens));
  }
  return stop_requested() ? kExitStopped : 0;
}

void add_sampling_options(Command& command, SamplingConfig& sampling) {
  command.option("--temperature", sampling.temperature, "0 is greedy (default)");
  command.option("--top-k", sampling.top_k, "keep the K most probable tokens; 0: all");
  command.option("--top-p", sampling.top_p, "keep the fewest tokens that reach P; 1: all");
  command.option("--min-p", sampling.min_p, "drop below P times the greatest; 0: none");
  command.option(
      "--repetition-penalty", sampling.repetition_penalty, "above 1: fewer repeats; 1: off");
  command.option("--seed", sampling.seed, "of the draws");
}

Option add_prompts_options(Command& command, PromptsCommand& prompts) {
  const auto file =
      command
          .option("--prompts",
                  prompts.file,
                  "prompts that share the passes: one a line, or in JSON lines (.jsonl, "
                  ".ndjson, .json) one object a line, {\"prompt\": TEXT} and its own "
                  "max_tokens, stop, temperature, top_k, top_p, min_p, repetition_penalty, "
                  "seed; also as gzip or zstd. Each has the text that it has alone; without "
                  "threshold_top_k, which depends on the batch. A prompt that cannot be run is "
                  "named and left out; the exit code is then 1")
          .path();
  command
      .option("--field",
              prompts.field,
              "key of the prompt in JSON lines (default: prompt); reads as JSON lines also a file "
              "of another name whose first line is an object")
      .needs(file);
  command
      .option("--kv-budget",
              prompts.kv_budget_mib,
              "MiB for the keys and values of --prompts (default 1024); others wait")
      .range(1, 1 << 30)
      .needs(file);
  command
      .option(
          "--max-batch", prompts.max_batch, "most completions of --prompts at once (default 64)")
      .range(1, 1 << 16)
      .needs(file);
  command
      .flag("--json-lines",
            prompts.json_lines,
            "each completion of --prompts as it ends, one JSON object a line; totals last")
      .needs(file);
  return file;
}

}  // namespace

void add_generate_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
  auto& command = line.subcommand("generate",
                                  "Continues a prompt. The text goes to a file or pipe as it is; "
                                  "a terminal is shown control characters as \\u001b.\n"
                                  "Example: dsmoe generate runs/quickstart --prompt 'ROMEO:' "
                                  "--policy top_k=4 --temperature 0.8");
  add_model_options(command, options->model);
  const auto prompt = command.option("--prompt", options->prompt, "text; empty: BOS alone");
  const auto file =
      command.option("--prompt-file", options->prompt_file, "read the prompt from a file")
          .path()
          .excludes(prompt);
  const auto draft = command.option("--draft",
                                    options->draft,
                                    "policy of fewer experts that drafts tokens for --policy to "
                                    "check, several in one pass; the text stays the same. --policy "
                                    "must not be threshold_top_k, which depends on the batch");
  command.option("--draft-tokens", options->draft_tokens, "guesses before each check (default 4)")
      .range(1, 1 << 10)
      .needs(draft);
  add_prompts_options(command, options->prompts).excludes(prompt).excludes(file).excludes(draft);
  command.option("--max-tokens", options->request.max_tokens, "most tokens to generate")
      .range(1, 1 << 30);
  command.option("--n", options->n, "completions; under threshold_top_k their number changes them")
      .range(1, 1 << 16);
  command.option("--stop",
                 options->request.stop,
                 "texts that end the completion, special tokens as they are spelled");
  add_sampling_options(command, options->request.sampling);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_generate(*options); });
}

}  // namespace dsmoe
