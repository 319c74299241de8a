// Generation by a model on another device than the CPU, one that computes there.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>

#include "csrc_kernels/expert_gemv/kernels.h"
#include "data/byte_tokenizer.h"
#include "infer/decode_steps.h"
#include "infer/engine.h"
#include "support/fake_device.h"
#include "support/test_device.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

std::vector<Completion> complete(at::Device device, EngineOptions options) {
  const ByteTokenizer tokenizer;
  GenerateRequest greedy;
  greedy.prompt = {256, 'T', 'o', ' ', 'b', 'e'};
  greedy.max_tokens = 12;
  auto drawn = greedy;
  drawn.prompt = {256, 'x'};
  drawn.sampling.temperature = 0.9;
  drawn.sampling.seed = 4;
  auto model = make_tiny_model();
  model->to(device);
  return generate(model, tokenizer, std::move(options), {greedy, drawn}).completions;
}

TEST_CASE("Engine: a model on another device gives the tokens of the CPU", "[infer][device]") {
  const std::string policy = GENERATE("all", "top_k=2", "moe:top_k=1;moa:top_k=1");
  const auto execution = GENERATE(Execution::kDense, Execution::kSparse);
  CAPTURE(policy);
  EngineOptions options;
  options.plan = parse_routing_plan(policy).with(execution);
  const auto expected = complete(at::kCPU, options);
  const auto completions = complete(fake_device(), options);
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK_FALSE(expected[i].ids.empty());
    CHECK(completions[i].ids == expected[i].ids);
    CHECK(completions[i].text == expected[i].text);
  }
}

TEST_CASE("Engine: a device with kernels gives the tokens of the CPU", "[infer][device_kernels]") {
  const std::string policy =
      GENERATE("all", "top_k=2", "moe:top_k=1;moa:top_k=1", "threshold=0.3", "threshold_top_k=0.3");
  const auto execution = GENERATE(Execution::kDense, Execution::kSparse);
  CAPTURE(policy, execution);
  EngineOptions options;
  options.plan = parse_routing_plan(policy).with(execution);
  const auto expected = complete(at::kCPU, options);
  const auto completions = complete(test_device(), options);
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK_FALSE(expected[i].ids.empty());
    CHECK(completions[i].ids == expected[i].ids);
  }
}

TEST_CASE("DecodeSteps: a device's steps are recorded where nothing waits for the host",
          "[infer][device_kernels]") {
  struct Case {
    const char* policy;
    Execution execution;
    int64_t batch;
    bool recorded;
  };
  const at::NoGradGuard no_grad;
  for (const auto& c : {Case{"all", Execution::kDense, 3, true},
                        Case{"top_k=2", Execution::kSparse, 3, true},
                        Case{"threshold=0.3", Execution::kSparse, kMostGemvTokens, true},
                        Case{"top_k=2", Execution::kSparse, kMostGemvTokens + 1, false},
                        Case{"top_k=2", Execution::kDense, kMostGemvTokens + 1, true},
                        Case{"threshold_top_k=0.3", Execution::kDense, 3, true}}) {
    CAPTURE(c.policy, c.batch);
    const auto plan = parse_routing_plan(c.policy).with(c.execution);
    auto on_cpu = make_tiny_model();
    auto on_device = make_tiny_model();
    on_device->to(test_device());
    DecodeSteps expected(on_cpu, plan, at::kFloat);
    DecodeSteps steps(on_device, plan, at::kFloat);
    auto cpu_cache = on_cpu->make_cache(c.batch, 8, at::kFloat);
    auto cache = on_device->make_cache(c.batch, 8, at::kFloat);
    for (int64_t i = 0; i < 5; ++i) {
      std::vector<int64_t> tokens;
      for (int64_t b = 0; b < c.batch; ++b) tokens.push_back((31 * i + 7 * b) % 257);
      const auto reference = expected.run(tokens, cpu_cache).logits;
      const auto logits = steps.run(tokens, cache).logits.cpu();
      CHECK((logits - reference).abs().max().item<double>() < 1e-3);
    }
    CHECK(steps.is_recorded() == c.recorded);
    CHECK_FALSE(expected.is_recorded());
  }
}

TEST_CASE("DecodeSteps: a recorded pass is not replayed over another cache",
          "[infer][device_kernels]") {
  const at::NoGradGuard no_grad;
  const RoutingPlan plan = RoutingPolicy::all();
  auto on_cpu = make_tiny_model();
  auto on_device = make_tiny_model();
  on_device->to(test_device());
  DecodeSteps expected(on_cpu, plan, at::kFloat);
  DecodeSteps steps(on_device, plan, at::kFloat);
  std::vector<KvCache> caches;
  for (const int64_t capacity : {8, 7}) {
    caches.push_back(on_device->make_cache(1, capacity, at::kFloat));
  }
  int64_t prompt = 5;
  for (auto& cache : caches) {
    auto cpu_cache = on_cpu->make_cache(1, 8, at::kFloat);
    DecodeSteps(on_cpu, plan, at::kFloat).run({prompt}, cpu_cache);
    DecodeSteps(on_device, plan, at::kFloat).run({prompt++}, cache);
    for (const int64_t token : {1, 2, 3, 4}) {
      const auto reference = expected.run({token}, cpu_cache).logits;
      const auto logits = steps.run({token}, cache).logits.cpu();
      CHECK((logits - reference).abs().max().item<double>() < 1e-3);
    }
    CHECK(steps.is_recorded());
    CHECK(cache.length(0) == 5);
  }
}

TEST_CASE("KvCache: freed memory that is used again is another storage",
          "[infer][device_kernels]") {
  auto model = make_tiny_model();
  model->to(test_device());
  const auto first = model->make_cache(2, 8, at::kFloat).storage_id();
  auto cache = model->make_cache(2, 8, at::kFloat);
  const auto second = cache.storage_id();
  CHECK(second != first);
  cache.keep({1});
  CHECK(cache.storage_id() != second);
}

}  // namespace
}  // namespace dsmoe
