#include "cli/options/convert.h"

#include <fmt/format.h>

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
      "Makes a checkpoint of a model in another format, or cuts its FFNs into experts.\n"
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
      .option("--tokenizer",
              options->tokenizer.spec,
              "bytes, a .model, tokenizer.json or llama2.c .bin file (default: the source's own)")
      .path();
  command.flag("--other-tokenizer",
               options->tokenizer.may_differ,
               "take --tokenizer even where the source has another");
  command.option("--partition",
                 options->partition,
                 "n_experts=8[,method=contiguous|random,seed=S,layers=0-3+7,router_std=0.02]: "
                 "cut the FFNs into experts; routers of N(0, router_std)");
  const auto text = command
                        .option("--text",
                                options->text,
                                fmt::format("compare perplexities before and after: token shards, "
                                            "or a file of {}",
                                            kTextHelp))
                        .path();
  add_text_options(command, options->format, text);
  add_force_option(command, options->force);
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().convert(*options); });
}

}  // namespace dsmoe
