// Generation by a model on another device than the CPU, one that computes there.
#include <catch2/catch.hpp>

#include "data/byte_tokenizer.h"
#include "infer/generator.h"
#include "support/fake_device.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

std::vector<Completion> generate(at::Device device, GeneratorOptions options) {
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
  return Generator(model, tokenizer, std::move(options)).generate({greedy, drawn});
}

TEST_CASE("Generator: a model on another device gives the tokens of the CPU", "[infer][device]") {
  const std::string policy = GENERATE("all", "top_k=2", "moe:top_k=1;moa:top_k=1");
  const bool use_cache = GENERATE(true, false);
  const auto execution = GENERATE(Execution::kDense, Execution::kSparse);
  CAPTURE(policy, use_cache);
  GeneratorOptions options;
  options.plan = parse_routing_plan(policy).with(execution);
  options.use_cache = use_cache;
  const auto expected = generate(at::kCPU, options);
  const auto completions = generate(fake_device(), options);
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK_FALSE(expected[i].ids.empty());
    CHECK(completions[i].ids == expected[i].ids);
    CHECK(completions[i].text == expected[i].text);
  }
}

}  // namespace
}  // namespace dsmoe
