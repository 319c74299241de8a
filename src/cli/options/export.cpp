#include "cli/options/export.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_export_command(CommandLine& line) {
  auto options = std::make_shared<ExportCommand>();
  auto& command = line.subcommand(
      "export",
      "Write a checkpoint in a foreign form, read it back and compare the logits. Refuses what the "
      "form cannot express.\n"
      "Example: dsmoe export runs/olmoe model.gguf --to gguf --policy top_k=8 --dtype bfloat16");
  add_checkpoint_argument(command, options->checkpoint);
  command.option("out", options->out, "path of the new file or directory").path().required();
  // The names of export_targets(), which LibTorch comes with.
  command.option("--to", options->target, "write this form")
      .choices({"hf-llama", "hf-jetmoe", "hf-olmoe", "gguf"})
      .required();
  add_policy_option(command, options->policy);
  command.option("--dtype", options->dtype, "write the matrices so")
      .choices({"float32", "float16", "bfloat16"});
  command
      .option("--logits",
              options->logits,
              "write the random tokens of the check and the model's logits to this JSON file, to "
              "compare other programs with")
      .path();
  const auto text = command
                        .option("--text",
                                options->text,
                                text_help("measure what leaving out the gates of a cut model costs "
                                          "under hf-llama on"))
                        .text_path()
                        .default_text("random tokens");
  add_text_options(command, options->format, text);
  add_force_option(command, options->force);
  add_threads_option(command, options->threads);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().export_checkpoint(*options); });
}

}  // namespace dsmoe
