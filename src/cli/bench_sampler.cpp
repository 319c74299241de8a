#include "cli/bench_sampler.h"

#include "cli/command_support.h"
#include "common/standard_output.h"
#include "infer/sampler_bench.h"

namespace dsmoe {
namespace {

nlohmann::ordered_json to_json(const std::vector<SamplerBenchResult>& results,
                               const SamplerBenchCommand& command) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& result : results) {
    list.push_back({{"vocab_size", result.vocab_size},
                    {"milliseconds", result.median_ms},
                    {"milliseconds_min", result.least_ms},
                    {"milliseconds_max", result.greatest_ms}});
  }
  return {{"temperature", command.sampling.temperature},
          {"top_p", command.sampling.top_p},
          {"repetitions", command.repetitions},
          {"draws", list}};
}

void print_text(const std::vector<SamplerBenchResult>& results,
                const SamplerBenchCommand& command) {
  print_out("one draw at temperature {}, top-p {}; median (least to greatest) of {}\n",
            command.sampling.temperature,
            command.sampling.top_p,
            command.repetitions);
  for (const auto& result : results) {
    print_out("{:>7} ids, ms {:>24.3f}  ({:.3f} to {:.3f})\n",
              result.vocab_size,
              result.median_ms,
              result.least_ms,
              result.greatest_ms);
  }
}

}  // namespace

int bench_sampler(const SamplerBenchCommand& command) {
  set_threads(command.threads);
  const auto results = run_sampler_bench({32'000, 128'256}, command.sampling, command.repetitions);
  if (command.json) {
    print_json(to_json(results, command));
  } else {
    print_text(results, command);
  }
  return 0;
}

}  // namespace dsmoe
