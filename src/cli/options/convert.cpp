#include "cli/options/convert.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_convert_command(CommandLine& line) {
  auto options = std::make_shared<ConvertCommand>();
  auto& command = line.subcommand(
      "convert",
      "Make a checkpoint of a model in another format, or cut its FFNs into experts.\n"
      "Example: dsmoe convert stories260K.bin dense --tokenizer tok512.bin\n"
      "         dsmoe convert dense cut --partition n_experts=4 --text valid.txt");
  command
      .option("source",
              options->source,
              "Hugging Face LLaMA directory, llama2.c .bin, checkpoint or run directory")
      .path()
      .required();
  command.option("out", options->out, "new checkpoint directory").path().required();
  command
      .option(
          "--tokenizer",
          options->tokenizer.spec,
          "give the model this tokenizer: bytes, a .model, tokenizer.json or llama2.c .bin file")
      .path()
      .default_text("the source's own");
  command.flag("--other-tokenizer",
               options->tokenizer.may_differ,
               "take --tokenizer even where the source has another");
  command
      .option("--partition",
              options->partition,
              "cut the FFNs into experts: "
              "n_experts=8[,method=contiguous|random,seed=S,layers=0-3+7,router_std=0.02]; routers "
              "of N(0, router_std)")
      .type("SPEC");
  const auto text =
      command.option("--text", options->text, text_help("compare perplexities before and after on"))
          .text_path();
  add_text_options(command, options->format, text);
  add_force_option(command, options->force);
  add_threads_option(command, options->threads);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().convert(*options); });
}

}  // namespace dsmoe
