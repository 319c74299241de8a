#include "cli/options/generate.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

namespace {

void add_sampling_options(Command& command, SamplingConfig& sampling) {
  command.option("--temperature", sampling.temperature, "0 is greedy (default)");
  command.option("--top-k", sampling.top_k, "keep the K most probable tokens; 0: all");
  command.option("--top-p", sampling.top_p, "keep the fewest tokens that reach P; 1: all");
  command.option("--min-p", sampling.min_p, "drop below P times the greatest; 0: none");
  command.option(
      "--repetition-penalty", sampling.repetition_penalty, "above 1: fewer repeats; 1: off");
  command.option("--seed", sampling.seed, "of the draws");
}

Option add_prompts_options(Command& command, PromptsOptions& prompts) {
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
  auto options = std::make_shared<GenerateCommand>();
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
  command.option("--max-tokens", options->max_tokens, "most tokens to generate").range(1, 1 << 30);
  command.option("--n", options->n, "completions; under threshold_top_k their number changes them")
      .range(1, 1 << 16);
  command.option(
      "--stop", options->stop, "texts that end the completion, special tokens as they are spelled");
  add_sampling_options(command, options->sampling);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().generate(*options); });
}

}  // namespace dsmoe
