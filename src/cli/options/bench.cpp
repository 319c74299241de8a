#include "cli/options/bench.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_bench_command(CommandLine& line) {
  auto options = std::make_shared<BenchCommand>();
  auto& command = line.subcommand(
      "bench",
      "Measure prompts and decoding, or with --train the training step. Runs a config with random "
      "weights or a checkpoint; with --train one or several configs in turn, on random tokens. "
      "Further arguments --section.key=value override keys of the configs.\n"
      "Example: dsmoe bench --config configs/bench/olmoe.yaml --policy top_k=8 --dtype bfloat16\n"
      "         dsmoe bench --train --config configs/bench/d1024-dense.yaml");
  command.group("What");
  const auto train = command.flag("--train", options->train, "measure the training step");
  command
      .option("--config",
              options->configs,
              "measure these YAML files, or without --train a checkpoint; others are compared with "
              "the first")
      .path();
  command
      .flag("--sampler",
            options->sampler,
            "measure instead, without a model, the draw of a token at temperature 0.8 and top-p "
            "0.95 from 32,000 and 128,256 ids")
      .excludes(train);
  command.option("--repetitions", options->repetitions, "count N steps of every config")
      .range(1, 1 << 20);
  command.option("--warmup", options->warmup, "run N steps of every config before these")
      .range(0, 1 << 20);
  command.group("Inference");
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* text) {
    command.option(name, value, text).range(least, int64_t{1} << 24);
  };
  count("--prompt", options->prompt, 0, "give prompts N tokens; 0: none");
  count("--generate", options->generate, 0, "decode N tokens; 0: none");
  count("--depth", options->depth, 0, "put N tokens into the cache before either");
  count("--batch", options->batch, 1, "run N sequences at once");
  add_policy_option(command, options->policy);
  add_execution_option(command, options->execution);
  add_dtype_option(command, options->dtype);
  command.group("Machine");
  add_threads_option(command, options->threads);
  command.option("--device", options->device, "run there; with --train the key device")
      .choices({"cpu", "cuda", "auto"})
      .default_text("cpu; with --train the key device");
  command.group("Output");
  const auto no_memory = command.flag("--no-memory", options->no_memory, "leave out peak memory");
  command.flag("--memory-only", options->memory_only, "measure peak memory and nothing else")
      .excludes(no_memory);
  command.flag("--print-config",
               options->print_config,
               "print the resolved configs, one YAML document each, then stop");
  command.flag(
      "--json",
      options->json,
      "print one JSON object on standard output: the first config's result, and `configs`");
  command.other_arguments(options->overrides);
  command.on_run([options] { return run_functions().bench(*options); });
}

}  // namespace dsmoe
