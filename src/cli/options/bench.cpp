#include "cli/options/bench.h"

#include <memory>

#include "cli/commands.h"
#include "cli/run_functions.h"

namespace dsmoe {

namespace {

void add_inference_options(Command& command, BenchCommand& options) {
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* text) {
    command.option(name, value, text).range(least, int64_t{1} << 24);
  };
  count("--prompt", options.prompt, 0, "tokens of the prompt, 0: none");
  count("--generate", options.generate, 0, "tokens to decode, 0: none");
  count("--depth", options.depth, 0, "tokens in the cache before either");
  count("--batch", options.batch, 1, "sequences at once");
  command.option("--policy", options.policy, "as for eval (default: the training selection)");
  command.option("--execution", options.execution, "auto, dense or sparse");
  command.option("--dtype", options.dtype, "of the weights: float32, bfloat16 or int8");
}

}  // namespace

void add_bench_command(CommandLine& line) {
  auto options = std::make_shared<BenchCommand>();
  auto& command = line.subcommand(
      "bench",
      "Measures prompts and decoding of a config with random weights or of a checkpoint, or with\n"
      "--train the training step of one or several configs, in turn, on random tokens; further\n"
      "arguments --section.key=value override keys of the configs.\n"
      "Example: dsmoe bench --config configs/bench/olmoe.yaml --policy top_k=8 --dtype bfloat16");
  const auto train = command.flag("--train", options->train, "measure the training step");
  command
      .option(
          "--config",
          options->configs,
          "YAML files, or without --train a checkpoint; the first is what others are compared with")
      .path();
  command
      .flag("--sampler",
            options->sampler,
            "measure instead, without a model, the draw of a token at temperature 0.8 and top-p "
            "0.95 from 32,000 and 128,256 ids")
      .excludes(train);
  command.option("--repetitions", options->repetitions, "counted steps of every config")
      .range(1, 1 << 20);
  command.option("--warmup", options->warmup, "steps of every config before these")
      .range(0, 1 << 20);
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.option("--device", options->device, "cpu, cuda or auto: with --train the key device");
  const auto no_memory = command.flag("--no-memory", options->no_memory, "leave out peak memory");
  command.flag("--memory-only", options->memory_only, "peak memory and nothing else")
      .excludes(no_memory);
  command.flag("--print-config",
               options->print_config,
               "print the resolved configs, one YAML document each, then stop");
  command.flag("--json",
               options->json,
               "one JSON object on standard output: the first config's result, and `configs`");
  add_inference_options(command, *options);
  command.other_arguments(options->overrides);
  command.on_run([options] { return run_functions().bench(*options); });
}

}  // namespace dsmoe
