#include "cli/options/budget.h"

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
      "Find how many experts each layer may leave out for a target, and write them as a routing "
      "file. Windows of the text in turn calibrate and are held out for what is reported.\n"
      "Example: dsmoe budget runs/quickstart --data data/tinyshakespeare/valid.txt "
      "--perplexity-rise 1% --out routing.yaml");
  command.group("Target, one of");
  const auto target = [&](const char* name, std::optional<double>& value, const char* text) {
    command.option(name, value, text).range(0.0, 1e15);
  };
  target("--active-parameters",
         options->active_parameters,
         "use at most X parameters per token, embeddings not counted");
  command
      .option("--perplexity-rise",
              options->perplexity_rise,
              "raise perplexity by at most this share: 1% or 0.01")
      .type("SHARE");
  target("--ms-per-token", options->ms_per_token, "decode one sequence in at most X ms per token");
  command.group("Text");
  const auto data = command.option("--data", options->data, text_help("calibrate and test on"))
                        .text_path()
                        .required();
  add_text_options(command, options->format, data);
  command.group("Search");
  command.option("--candidates", options->candidates, "let a layer take these policies")
      .type("POLICY")
      .default_text("top_k and thresholds");
  command.option("--tokens", options->tokens, "measure each sensitivity on about N tokens")
      .range(int64_t{1}, int64_t{1} << 40);
  command
      .option("--held-out-tokens",
              options->held_out_tokens,
              "measure the perplexity of a plan on about N tokens; 0: all")
      .range(int64_t{0}, int64_t{1} << 40);
  command
      .option("--batch",
              options->batch,
              "give each forward pass N windows; changes the numbers of threshold_top_k")
      .range(1, 1 << 20);
  add_model_options(command, options->model);
  command.group("Output");
  command.option("-o,--out", options->out, "write the routing here, for --policy routing=FILE")
      .path();
  add_force_option(command, options->force);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().budget(*options); });
}

}  // namespace dsmoe
