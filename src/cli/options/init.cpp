#include "cli/options/init.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_init_command(CommandLine& line) {
  auto options = std::make_shared<InitCommand>();
  auto& command = line.subcommand(
      "init",
      "Write a short config with sizes, batch, rates and loss weights for a model of a size, and "
      "print its parameters, steps and memory.\n"
      "Example: dsmoe init --params 20M --tokens 400M --out tiny.yaml");
  command.option("--params", options->params, "make a model of N parameters, embeddings included")
      .type("N")
      .default_text("those of --from");
  command.option("--tokens", options->tokens, "train on N tokens, such as 400M")
      .type("N")
      .required();
  const auto style = command.option("--style", options->style, "make a model of this family")
                         .choices({"ds-moe", "dense", "smoe", "partition"});
  command
      .option(
          "--from", options->from, "train on from a checkpoint or run: the config takes its model")
      .path()
      .default_text("random weights")
      .excludes(style);
  command
      .option("--data", options->data, "take data and vocabulary from an output of dsmoe tokenize")
      .path()
      .default_text("shards, to be made");
  command.option("--vocab", options->vocab_size, "count N ids of the tokenizer")
      .range(int64_t{1}, int64_t{1} << 24)
      .default_text("that of --data, else 257, 4096, 32000 or 50295 by size");
  command.option("-o,--out", options->out, "write the config here")
      .path()
      .default_text("STYLE-PARAMS.yaml");
  add_force_option(command, options->force);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().init(*options); });
}

}  // namespace dsmoe
