#include "cli/options/eval.h"

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
      "Measure perplexity, or with --choices the share of right answers, under a routing policy.\n"
      "Example: dsmoe eval runs/quickstart --data data/tinyshakespeare/valid.txt --policy "
      "threshold=0.48\n"
      "         dsmoe eval runs/quickstart --choices questions.jsonl");
  command.group("Text");
  const auto data = command
                        .option("--data",
                                options->data,
                                text_help("score") + "; repeated: a row for each and the total")
                        .text_path()
                        .one_value_each();
  add_text_options(command, options->format, data);
  add_protocol_options(command, options->protocol, options->batch);
  command
      .option("--words",
              options->words,
              "also divide the loss by a number of words: N, or auto: white-space words plus line "
              "ends")
      .type("N|auto");
  command.flag("--experts",
               options->experts,
               "with --data: show experts that go together, tokens typical of each, and with "
               "several --data how the experts tell them apart");
  command.group("Questions");
  command
      .option("--choices",
              options->choices,
              "answer lines of JSON: context, choices and answer, or good and bad; group. An item "
              "that cannot be scored is named and left out; the exit code is then 1")
      .text_path();
  command.option("-o,--out", options->out, "with --choices: write each item's log-likelihoods")
      .path();
  add_force_option(command, options->force);
  command.group("Comparison");
  command
      .option("--against",
              options->against,
              "with --data: compare with the predictions of this checkpoint")
      .path();
  command
      .option("--against-policy",
              options->against_policy,
              "run that checkpoint, or this one again, under this policy")
      .type("POLICY")
      .default_text("the training selection");
  add_model_options(command, options->model);
  command.group("Output");
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().eval(*options); });
}

}  // namespace dsmoe
