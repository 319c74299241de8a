#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "common/error.h"
#include "common/stop_signal.h"
#include "infer/generator.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxPromptBytes = 1 << 26;

struct Options {
  ModelOptions model;
  std::string prompt;
  std::string prompt_file;
  SamplingConfig sampling;
  std::vector<std::string> stop;
  int64_t max_tokens = 128;
  int64_t n = 1;
  bool json = false;
};

std::vector<int32_t> encode_prompt(const Options& options, const Tokenizer& tokenizer) {
  const auto text = options.prompt_file.empty()
                        ? options.prompt
                        : read_file(posix_io(), options.prompt_file, kMaxPromptBytes);
  std::vector<int32_t> ids;
  if (const auto bos = tokenizer.bos_id()) ids.push_back(*bos);
  const auto encoded = tokenizer.encode(text);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  if (ids.empty()) {
    throw Error("--prompt: expected a text, got none; this tokenizer has no BOS to start from");
  }
  return ids;
}

double per_second(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

void print_result(const std::vector<Completion>& completions, const GenerateStats& stats) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& completion : completions) {
    list.push_back({{"text", completion.text},
                    {"ids", completion.ids},
                    {"finish_reason", to_string(completion.finish_reason)}});
  }
  print_json({{"completions", list},
              {"prompt_tokens", stats.prompt_tokens},
              {"generated_tokens", stats.generated_tokens},
              {"prefill_tokens_per_second", per_second(stats.prompt_tokens, stats.prefill_seconds)},
              {"decode_tokens_per_second", per_second(stats.decode_tokens, stats.decode_seconds)},
              {"active_experts", active_experts_json(stats.usage.active_experts())}});
}

int generate(const Options& options) {
  options.sampling.validate();
  auto loaded = load_checkpoint(options.model);
  GenerateRequest request{.prompt = encode_prompt(options, *loaded.tokenizer),
                          .max_tokens = options.max_tokens,
                          .sampling = options.sampling,
                          .stop = options.stop};
  // Several completions at once would interleave: they are printed when all are done.
  const bool stream = !options.json && options.n == 1;
  GeneratorOptions generator_options{.plan = loaded.plan,
                                     .compute_dtype = loaded.compute_dtype,
                                     .on_text = {},
                                     .stop = stop_requested};
  if (stream) {
    // The prompt comes with the first text: a refused prompt prints nothing.
    generator_options.on_text = [prompt = options.prompt](size_t, const std::string& text) mutable {
      std::fputs(std::exchange(prompt, "").c_str(), stdout);
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
  }
  install_stop_signal();
  Generator generator(loaded.model, *loaded.tokenizer, generator_options);
  const auto completions =
      generator.generate(std::vector<GenerateRequest>(static_cast<size_t>(options.n), request));
  const auto& stats = generator.stats();
  if (options.json) {
    print_result(completions, stats);
  } else if (stream) {
    std::fputc('\n', stdout);
    std::fflush(stdout);
  } else {
    for (size_t i = 0; i < completions.size(); ++i) {
      fmt::print("--- {}\n{}{}\n", i + 1, options.prompt, completions[i].text);
    }
  }
  fmt::print(stderr,
             "{} tokens, {:.1f} per second\n",
             stats.generated_tokens,
             per_second(stats.decode_tokens, stats.decode_seconds));
  return stop_requested() ? kExitStopped : 0;
}

void add_sampling_options(CLI::App& command, SamplingConfig& sampling) {
  command.add_option("--temperature", sampling.temperature, "0 is greedy (default)");
  command.add_option("--top-k", sampling.top_k, "keep the K most probable tokens; 0: all");
  command.add_option("--top-p", sampling.top_p, "keep the fewest tokens that reach P; 1: all");
  command.add_option("--min-p", sampling.min_p, "drop below P times the greatest; 0: none");
  command.add_option(
      "--repetition-penalty", sampling.repetition_penalty, "above 1: fewer repeats; 1: off");
  command.add_option("--seed", sampling.seed, "of the draws");
}

}  // namespace

void add_generate_command(CLI::App& app, CommandRun& run) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("generate",
                                     "Continues a prompt.\n"
                                     "Example: dsmoe generate runs/quickstart --prompt 'ROMEO:' "
                                     "--policy top_k=4 --temperature 0.8");
  add_model_options(*command, options->model);
  auto* prompt = command->add_option("--prompt", options->prompt, "text; empty: BOS alone");
  command->add_option("--prompt-file", options->prompt_file, "read the prompt from a file")
      ->excludes(prompt);
  command->add_option("--max-tokens", options->max_tokens, "most tokens to generate")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  command->add_option("--n", options->n, "completions")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  command->add_option("--stop", options->stop, "texts that end the completion");
  add_sampling_options(*command, options->sampling);
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->callback([options, &run] { run = [options] { return generate(*options); }; });
}

}  // namespace dsmoe
