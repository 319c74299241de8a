#include "cli/options/generate.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

namespace {

void add_sampling_options(Command& command, SamplingConfig& sampling) {
  command.option("--temperature", sampling.temperature, "divide logits by X; 0: greedy");
  command.option("--top-k", sampling.top_k, "keep the N most probable tokens; 0: all");
  command.option("--top-p", sampling.top_p, "keep the fewest tokens that reach X; 1: all");
  command.option("--min-p", sampling.min_p, "drop tokens below X times the greatest; 0: none");
  command.option("--repetition-penalty",
                 sampling.repetition_penalty,
                 "make tokens seen less likely, above 1; 1: off");
  command.option("--seed", sampling.seed, "draw from this seed");
}

Option add_prompts_options(Command& command, PromptsOptions& prompts) {
  const auto file =
      command
          .option("--prompts",
                  prompts.file,
                  "continue many prompts that share the passes: one a line, or in JSON lines "
                  "(.jsonl, .ndjson, .json) one object a line, {\"prompt\": TEXT} and its own "
                  "max_tokens, stop, temperature, top_k, top_p, min_p, repetition_penalty, seed; "
                  "also as gzip or zstd; - reads standard input. Each has the text that it has "
                  "alone; without threshold_top_k, which depends on the batch. A prompt that "
                  "cannot be run is named and left out; the exit code is then 1")
          .text_path();
  command
      .option("--field",
              prompts.field,
              "take the prompt of JSON lines from this key; reads as JSON lines also a file of "
              "another name whose first line is an object")
      .default_text("prompt")
      .needs(file);
  command.option("--kv-budget", prompts.kv_budget_mib, "hold N MiB of keys and values; others wait")
      .range(1, 1 << 30)
      .needs(file);
  command.option("--max-batch", prompts.max_batch, "run at most N completions at once")
      .range(1, 1 << 16)
      .needs(file);
  command
      .flag("--json-lines",
            prompts.json_lines,
            "print each completion as it ends, one JSON object a line; totals last")
      .needs(file);
  return file;
}

}  // namespace

void add_generate_command(CommandLine& line) {
  auto options = std::make_shared<GenerateCommand>();
  auto& command = line.subcommand(
      "generate",
      "Continue a prompt. The text goes to a file or pipe as it is; a terminal is shown control "
      "characters as \\u001b.\n"
      "Example: dsmoe generate runs/quickstart -p 'ROMEO:' -n 100 --policy top_k=4 --temperature "
      "0.8");
  command.group("Prompt");
  const auto prompt = command.option("-p,--prompt", options->prompt, "continue this text")
                          .default_text("empty, which is BOS alone");
  const auto file = command
                        .option("-f,--prompt-file",
                                options->prompt_file,
                                "continue this file; - reads standard input")
                        .text_path()
                        .excludes(prompt);
  command.group("Completion");
  command.option("-n,--max-tokens", options->max_tokens, "generate at most N tokens")
      .range(1, 1 << 30);
  command
      .option(
          "--n", options->n, "make N completions; under threshold_top_k their number changes them")
      .range(1, 1 << 16);
  command.option("--stop", options->stop, "end at these texts, special tokens as they are spelled");
  command.group("Sampling");
  add_sampling_options(command, options->sampling);
  command.group("Speculation");
  const auto draft = command
                         .option("--draft",
                                 options->draft,
                                 "draft tokens under this policy of fewer experts, for --policy to "
                                 "check, several in one pass; the text stays the same. --policy "
                                 "must not be threshold_top_k, which depends on the batch")
                         .type("POLICY");
  command.option("--draft-tokens", options->draft_tokens, "draft N tokens before each check")
      .range(1, 1 << 10)
      .needs(draft);
  command.group("Many prompts");
  add_prompts_options(command, options->prompts).excludes(prompt).excludes(file).excludes(draft);
  add_model_options(command, options->model);
  command.group("Output");
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().generate(*options); });
}

}  // namespace dsmoe
