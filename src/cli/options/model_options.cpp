#include "cli/options/model_options.h"

namespace dsmoe {

void add_model_options(Command& command, ModelOptions& options) {
  command
      .option(
          "checkpoint", options.checkpoint, "checkpoint or run directory (its newest valid one)")
      .path()
      .required();
  command.option("--policy",
                 options.policy,
                 "experts used: all, top_k=K, threshold=E, threshold=E,max=K, "
                 "threshold_top_k=E, moe:P;moa:P or routing=FILE.yaml (default: the training "
                 "selection)");
  command.option("--execution", options.execution, "auto, dense or sparse");
  command.option("--device", options.device, "cpu, cuda or auto");
  command.option("--dtype", options.dtype, "of the weights: float32, bfloat16 or int8");
  command.option("--threads", options.threads, "0: all cores").range(0, 4096);
}

void add_force_option(Command& command, bool& force) {
  command.flag(
      "--force", force, "replace an output that exists; it stays until the new one is complete");
}

}  // namespace dsmoe
