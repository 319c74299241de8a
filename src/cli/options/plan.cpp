#include "cli/options/plan.h"

#include <memory>

#include "cli/commands.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_plan_command(CommandLine& line) {
  auto options = std::make_shared<PlanCommand>();
  auto& command = line.subcommand(
      "plan",
      "Predicts parameters, operations, memory, time and cost of a config without building it; "
      "further arguments --section.key=value override its keys.\n"
      "Example: dsmoe plan configs/ds_moe_6b.yaml --gpus 32 --gpu h100");
  command.option("config", options->config, "YAML file, see configs/README.md").path().required();
  command.option("--gpu", options->gpu, "a100, h100, h200 or l40s");
  command.option("--gpus", options->n_gpus, "ranks").range(1, 1 << 20);
  command.option("--gpus-per-host", options->gpus_per_host, "linked with each other")
      .range(1, 1 << 20);
  command
      .option("--network", options->network_gigabytes, "GB/s of one GPU to other hosts, each way")
      .range(0.01, 1e4);
  command.option("--mfu", options->mfu, "share of the GPU's peak that is reached").range(0.01, 1.0);
  command.option("--price", options->price_per_hour, "of one GPU for an hour").range(0.0, 1e6);
  command.option("--policies", options->policies, "to infer with; see eval --help");
  command.flag("--roofline",
               options->roofline,
               "instead: operations, bytes and expected time by kernel, of one micro-batch's "
               "step and of decoding; nothing of it is measured");
  command.option("--keys", options->n_keys, "with --roofline: context of each sequence")
      .range(1, 1 << 30);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.other_arguments(options->overrides);
  command.on_run([options] { return run_functions().plan(*options); });
}

}  // namespace dsmoe
