#include <fmt/format.h>

#include <filesystem>

#include "cli/command_support.h"
#include "cli/options/init.h"
#include "cli/run_functions.h"
#include "common/counts.h"
#include "common/error.h"
#include "common/machine_resources.h"
#include "common/staged_output.h"
#include "common/standard_output.h"
#include "data/token_dataset.h"
#include "data/tokenize.h"
#include "report/starter_config.h"
#include "train/init_source.h"

namespace dsmoe {
namespace {

constexpr double kGib = 1 << 30;

int64_t count_of(const char* option, const std::string& text) {
  if (const auto count = parse_count(text)) return *count;
  throw Error(fmt::format("{}: expected a count such as 20M, got '{}'", option, text));
}

// The data sets of --data, and their vocabulary.
void take_data(StarterRequest& request, const std::string& data) {
  request.has_data = true;
  const bool is_split = std::filesystem::is_directory(train_part(data));
  request.train = is_split ? train_part(data) : data;
  request.validation = is_split ? validation_part(data) : "";
  if (request.vocab_size > 0) return;
  request.vocab_size = TokenDataset(request.train).tokenizer().vocab_size();
}

StarterRequest request_of(const InitCommand& options) {
  StarterRequest request;
  if (options.params.empty() && options.from.empty()) {
    throw Error("init: expected --params with a size, such as 20M, or --from CHECKPOINT");
  }
  if (!options.params.empty()) request.parameters = count_of("--params", options.params);
  request.tokens = count_of("--tokens", options.tokens);
  request.style = parse_starter_style(options.style);
  request.vocab_size = options.vocab_size;
  if (!options.data.empty()) take_data(request, options.data);
  if (!options.from.empty()) {
    RunConfig config;
    config.train.init_from = options.from;
    const auto source = find_init_source(posix_io(), config, "none");
    request.source = {.path = options.from, .model = source->model};
  }
  return request;
}

nlohmann::ordered_json to_json(const StarterConfig& made) {
  nlohmann::ordered_json active = nlohmann::ordered_json::object();
  for (const auto& row : made.policies) active[row.policy] = row.active_parameters;
  return {{"path", made.file},
          {"parameters_total", made.parameters.total()},
          {"parameters_embeddings", made.parameters.embeddings},
          {"parameters_active", active},
          {"tokens", made.tokens},
          {"tokens_per_step", made.tokens_per_step},
          {"steps", made.config.train.steps},
          {"warmup_steps", made.config.train.schedule.warmup_steps},
          {"memory_bytes", made.memory.peak},
          {"next", made.next_commands}};
}

void print_plan(const StarterConfig& made) {
  const auto& count = made.parameters;
  print_out("{}: {} parameters, {} of them in embeddings\n",
            made.file,
            short_count(static_cast<double>(count.total())),
            short_count(static_cast<double>(count.embeddings)));
  for (const auto& row : made.policies) {
    print_out("  {:<14} {:>6} active a token, {:.1f} % without embeddings\n",
              row.policy,
              short_count(row.active_parameters),
              100 * row.active_parameters / static_cast<double>(count.non_embedding()));
  }
  print_out("  {} tokens in {} steps of {}, warm-up {} steps\n",
            short_count(static_cast<double>(made.tokens)),
            made.config.train.steps,
            made.tokens_per_step,
            made.config.train.schedule.warmup_steps);
  print_out("  {:.1f} GiB of memory to train on one rank; this machine has {:.1f} GiB\n",
            made.memory.peak / kGib,
            static_cast<double>(machine_memory_bytes()) / kGib);
  print_out("next:\n");
  for (const auto& command : made.next_commands) print_out("  dsmoe {}\n", command);
}

}  // namespace

int run_init(const InitCommand& options) {
  const auto made = make_starter_config(request_of(options), options.out);
  write_output_file(posix_io(), made.file, made.yaml, existing_of(options.force));
  if (options.json) {
    print_json(to_json(made));
  } else {
    print_plan(made);
  }
  return 0;
}

}  // namespace dsmoe
