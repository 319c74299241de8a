#include "cli/options/export.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

namespace {

// The names of export_targets(), which LibTorch comes with.
constexpr const char* kTargets = "hf-llama, hf-jetmoe, hf-olmoe, gguf";

}  // namespace

void add_export_command(CommandLine& line) {
  auto options = std::make_shared<ExportCommand>();
  auto& command = line.subcommand(
      "export",
      "Writes a checkpoint in a foreign form, reads it back and compares the logits; refuses what "
      "the form cannot express.\n"
      "Example: dsmoe export runs/olmoe model.gguf --to gguf --policy top_k=8 --dtype bfloat16");
  command.option("checkpoint", options->checkpoint, "checkpoint or run directory")
      .path()
      .required();
  command.option("out", options->out, "path of the new file or directory").path().required();
  command.option("--to", options->target, kTargets).required();
  command.option("--policy",
                 options->policy,
                 "the selection that the written model will use (default: the training one)");
  command.option("--dtype", options->dtype, "of the matrices: float32, float16 or bfloat16");
  command
      .option("--logits",
              options->logits,
              "JSON file for the random tokens of the check and the model's logits, to "
              "compare other programs with")
      .path();
  add_force_option(command, options->force);
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().export_checkpoint(*options); });
}

}  // namespace dsmoe
