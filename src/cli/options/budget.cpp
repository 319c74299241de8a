#include "cli/options/budget.h"

#include <fmt/format.h>

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_budget_command(CommandLine& line) {
  auto options = std::make_shared<BudgetCommand>();
  auto& command = line.subcommand(
      "budget",
      "Finds how many experts each layer may leave out for a target, and writes them as a routing\n"
      "file. Half of the text's windows calibrate, the others are held out for what is reported.\n"
      "Example: dsmoe budget runs/quickstart --data data/tinyshakespeare/valid.txt "
      "--perplexity-rise 0.01 --out routing.yaml");
  add_model_options(command, options->model);
  const auto data =
      command
          .option("--data", options->data, fmt::format("token shards, or a file of {}", kTextHelp))
          .path()
          .required();
  add_text_options(command, options->format, data);
  const auto target = [&](const char* name, std::optional<double>& value, const char* text) {
    command.option(name, value, text).range(0.0, 1e15);
  };
  target("--active-parameters", options->active_parameters, "at most so many, not of embeddings");
  target(
      "--perplexity-rise", options->perplexity_rise, "at most by this share, 0.01 for one percent");
  target("--ms-per-token", options->ms_per_token, "at most, decoding one sequence");
  command.option("--candidates",
                 options->candidates,
                 "policies a layer may take (default: top_k and thresholds)");
  command.option("--tokens", options->tokens, "about so many measure each sensitivity")
      .range(int64_t{1}, int64_t{1} << 40);
  command
      .option("--batch",
              options->batch,
              "windows per forward pass (default 8); changes the numbers of threshold_top_k")
      .range(1, 1 << 20);
  command.option("--out", options->out, "file to write, for --policy routing=FILE").path();
  add_force_option(command, options->force);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().budget(*options); });
}

}  // namespace dsmoe
