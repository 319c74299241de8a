#include "cli/options/plan.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_plan_command(CommandLine& line) {
  auto options = std::make_shared<PlanCommand>();
  auto& command = line.subcommand(
      "plan",
      "Predict parameters, operations, memory, time and cost of a config without building it. "
      "Further arguments --section.key=value override its keys.\n"
      "Example: dsmoe plan configs/ds_moe_6b.yaml --gpus 32 --gpu h100 --price 2.5");
  command.option("config", options->config, "YAML file, see configs/README.md").path().required();
  command.group("Machine");
  command.option("--gpu", options->gpu, "train on a100, h100, h200 or l40s, in any case")
      .type("NAME");
  command.option("--gpus", options->n_gpus, "train on N of them").range(1, 1 << 20);
  command.option("--gpus-per-host", options->gpus_per_host, "link N of them with each other")
      .range(1, 1 << 20);
  command
      .option("--network", options->network_gigabytes, "give each X GB/s to other hosts, each way")
      .range(0.01, 1e4);
  command.option("--mfu", options->mfu, "reach this share of the GPU's peak")
      .range(0.01, 1.0)
      .default_text("what the roofline predicts");
  command.option("--price", options->price_per_hour, "pay X for an hour of one GPU; 0: unknown")
      .range(0.0, 1e6);
  command.option("--currency", options->currency, "name the money of --price so");
  command.group("Model");
  command.option("--policies", options->policies, "infer with these; see 'dsmoe help eval'")
      .type("POLICY")
      .default_text("those of the config's model");
  command.group("Output");
  command.flag("--roofline",
               options->roofline,
               "print instead operations, bytes and expected time by kernel, of one micro-batch's "
               "step and of decoding; nothing of it is measured");
  command
      .option("--keys", options->n_keys, "with --roofline: give each sequence N tokens of context")
      .range(1, 1 << 30);
  add_json_option(command, options->json);
  command.other_arguments(options->overrides);
  command.on_run([options] { return run_functions().plan(*options); });
}

}  // namespace dsmoe
