#include "cli/options/recommend.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_recommend_command(CommandLine& line) {
  auto options = std::make_shared<RecommendCommand>();
  auto& command = line.subcommand(
      "recommend",
      "Find the routing policy with the fewest active parameters within a rise of perplexity. "
      "Measures thresholds of 0.2, 0.4, 0.6, 0.8 and 1.2 and top_k in powers of 2, then up to "
      "three values of each beside the last one within the rise. The rise is over all experts, or "
      "over the training selection where that is better.\n"
      "Example: dsmoe recommend runs/quickstart --data data/tinyshakespeare/valid.txt --rise 1%");
  command.group("Text");
  const auto data =
      command.option("--data", options->data, text_help("measure on")).text_path().required();
  add_text_options(command, options->format, data);
  command.group("Search");
  command.option("--rise", options->rise, "raise perplexity by at most this share: 1% or 0.01")
      .type("SHARE");
  command
      .option("--tokens",
              options->tokens,
              "measure each policy on about N tokens, spread over the text")
      .range(int64_t{1}, int64_t{1} << 40);
  command.option("--batch", options->batch, "give each forward pass N windows").range(1, 1 << 20);
  add_model_options(command, options->model);
  command.group("Output");
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().recommend(*options); });
}

}  // namespace dsmoe
