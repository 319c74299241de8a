#include "cli/options/model_options.h"

namespace dsmoe {

void add_model_options(Command& command, ModelOptions& options) {
  command.group("Model");
  add_checkpoint_argument(command, options.checkpoint);
  add_policy_option(command, options.policy);
  add_execution_option(command, options.execution);
  add_device_option(command, options.device, "run there; auto: a GPU where there is one");
  command
      .option(
          "--dtype",
          options.dtype,
          "store the weights so; auto: as in training where the CPU is fast at it, else float32")
      .choices({"auto", "float32", "bfloat16", "int8"});
  add_threads_option(command, options.threads);
}

void add_checkpoint_argument(Command& command, std::string& checkpoint) {
  command
      .option("checkpoint", checkpoint, "checkpoint, or run directory: its newest valid checkpoint")
      .path()
      .required();
}

Option add_policy_option(Command& command, std::string& policy) {
  return command
      .option("--policy",
              policy,
              "select experts of a token: all; top_k=K, the K strongest FFN experts, attention "
              "dense; threshold=E, those with n_experts times router probability above E (of a cut "
              "model with a gate above E); threshold=E,max=K, of these at most K; "
              "threshold_top_k=E, K is the batch's mean count above E; moe:P;moa:P for FFN and "
              "attention experts; routing=FILE.yaml by layer")
      .type("POLICY")
      .default_text("the training selection");
}

void add_execution_option(Command& command, std::string& execution) {
  command.option("--execution", execution, "compute all experts, or the selected ones only")
      .choices({"auto", "dense", "sparse"});
}

void add_device_option(Command& command, std::string& device, std::string_view help) {
  command.option("--device", device, help).choices({"cpu", "cuda", "auto"});
}

void add_dtype_option(Command& command, std::string& dtype) {
  command.option("--dtype", dtype, "store the weights so").choices({"float32", "bfloat16", "int8"});
}

void add_threads_option(Command& command, int& threads) {
  command.option("--threads", threads, "use N threads; 0: all cores")
      .range(0, 4096)
      .default_text("all cores");
}

void add_force_option(Command& command, bool& force) {
  command.flag(
      "--force", force, "replace an output that exists; it stays until the new one is complete");
}

void add_json_option(Command& command, bool& json) {
  command.flag("--json", json, "print one JSON object on standard output");
}

}  // namespace dsmoe
