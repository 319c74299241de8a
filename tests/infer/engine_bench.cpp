// Time of Engine::step beside the decode steps that run_infer_bench times: test_infer "[.bench]".
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

#include "data/byte_tokenizer.h"
#include "infer/engine.h"
#include "infer/infer_bench.h"
#include "model/packed_weights.h"
#include "support/tiny_model_config.h"

namespace dsmoe {
namespace {

constexpr int64_t kDepth = 32;
constexpr int64_t kSteps = 64;

Transformer make_packed_model() {
  auto config = tiny_model_config();
  config.d_model = 512;
  config.n_layers = 4;
  config.ffn.d_expert = 256;
  config.max_seq_len = 2 * (kDepth + kSteps);
  Transformer model(config);
  init_weights(model, 1);
  pack_weights(model, {.format = PackedFormat::kFloat32});
  return model;
}

// Seconds per decode step of the engine: its passes, and whole steps with sampling and text.
struct EngineTimes {
  double pass = 0;
  double step = 0;
};

EngineTimes time_engine(const Transformer& model, const RoutingPlan& plan) {
  const ByteTokenizer tokenizer;
  Engine engine(model, tokenizer, {.plan = plan});
  GenerateRequest request;
  for (int32_t i = 0; i < kDepth; ++i) request.prompt.push_back(i % 251);
  request.max_tokens = kSteps + 1;
  request.sampling.temperature = 1.0;
  engine.submit(request);
  engine.step();  // the prompt
  const double before = engine.stats().seconds;
  while (engine.step()) {
  }
  const auto& stats = engine.stats();
  const auto n = static_cast<double>(stats.decode_tokens);
  return {.pass = stats.decode_seconds / n, .step = (stats.seconds - before) / n};
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

TEST_CASE("engine bench: a step of the engine beside one of run_infer_bench", "[.bench][infer]") {
  auto model = make_packed_model();
  for (const char* policy : {"all", "moe:top_k=1;moa:all"}) {
    const auto plan = parse_routing_plan(policy);
    std::vector<double> passes;
    std::vector<double> steps;
    for (int round = 0; round < 31; ++round) {
      const InferBenchOptions options{.prompt = 0,
                                      .generate = kSteps,
                                      .depth = kDepth,
                                      .repetitions = 1,
                                      .warmup = 0,
                                      .measure_bandwidth = false,
                                      .plan = plan};
      const double bench = run_infer_bench(model, options).least_decode_seconds() / kSteps;
      const auto engine = time_engine(model, plan);
      passes.push_back(engine.pass / bench);
      steps.push_back(engine.step / bench);
    }
    WARN(fmt::format("{}: engine over bench, median of 31 rounds: pass {:.3f}, whole step {:.3f}",
                     policy,
                     median_of(passes),
                     median_of(steps)));
  }
}

}  // namespace dsmoe
