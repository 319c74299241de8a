#include "cli/options/eval.h"

#include <fmt/format.h>

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_eval_command(CommandLine& line) {
  auto options = std::make_shared<EvalCommand>();
  auto& command = line.subcommand(
      "eval",
      "Measures perplexity, or with --choices the share of right answers, under a routing policy.\n"
      "Example: dsmoe eval runs/quickstart --data data/tinyshakespeare/valid.txt --policy "
      "threshold=0.48");
  add_model_options(command, options->model);
  const auto data =
      command
          .option("--data",
                  options->data,
                  fmt::format("token shards, or a file of {}; repeated: each scored on its own",
                              kTextHelp))
          .path()
          .one_value_each();
  add_text_options(command, options->format, data);
  command.flag("--experts",
               options->experts,
               "with --data: experts that go together, tokens typical of each, and with "
               "several --data how the experts tell them apart");
  command
      .option("--choices",
              options->choices,
              "lines of JSON: context, choices and answer, or good and bad; group. An item that "
              "cannot be scored is named and left out; the exit code is then 1")
      .path();
  command.option("--out", options->out, "with --choices: each item's log-likelihoods").path();
  add_force_option(command, options->force);
  command
      .option("--against",
              options->against,
              "with --data: a checkpoint whose predictions are compared with")
      .path();
  command.option("--against-policy",
                 options->against_policy,
                 "its policy, or another of this checkpoint (default: the training selection)");
  command.option(
      "--window", options->protocol.window, "tokens per forward pass (default: the context)");
  command.option("--stride", options->protocol.stride, "new tokens per window (default: window)");
  command
      .option("--batch",
              options->batch,
              "windows or choices per forward pass (default 8); changes the numbers of "
              "threshold_top_k")
      .range(1, 1 << 20);
  command.option("--words",
                 options->words,
                 "divide by a number of words: N, or auto (white-space words plus line ends)");
  command.flag(
      "--documents", options->protocol.documents, "each document alone, cut to the context");
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().eval(*options); });
}

}  // namespace dsmoe
