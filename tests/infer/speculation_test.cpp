#include "infer/engine.h"

#include <catch2/catch.hpp>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "model/packed_weights.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

const ByteTokenizer kTokenizer;
constexpr int64_t kContext = 60;

Transformer make_packed(PackedFormat format = PackedFormat::kFloat32) {
  auto config = tiny_model_config();
  config.max_seq_len = kContext;
  Transformer model(config);
  init_weights(model, 1, 0.4);
  pack_weights(model, {.format = format});
  return model;
}

GenerateRequest request_of(const std::string& prompt, int64_t max_tokens, double temperature) {
  GenerateRequest request;
  request.prompt = {256};
  for (const int32_t id : kTokenizer.encode(prompt)) request.prompt.push_back(id);
  request.max_tokens = max_tokens;
  request.sampling = {.temperature = temperature, .seed = 7};
  return request;
}

EngineOptions options_of(const std::string& plan, const std::string& draft, int64_t n = 4) {
  return {.plan = parse_routing_plan(plan),
          .continuous = true,
          .speculation = Speculation{.plan = parse_routing_plan(draft), .n_tokens = n}};
}

Completion complete(Transformer model,
                    const EngineOptions& options,
                    const GenerateRequest& request) {
  return generate(std::move(model), kTokenizer, options, {request}).completions[0];
}

}  // namespace

TEST_CASE("Speculation: a plan whose experts depend on the batch is refused, a draft is not") {
  auto model = make_packed();
  CHECK_THROWS_WITH(Engine(model, kTokenizer, options_of("threshold_top_k=0.5", "top_k=1")),
                    Contains("--draft: ") && Contains("threshold_top_k"));
  const auto request = request_of("To be", 12, 0.8);
  CHECK(complete(model, options_of("all", "threshold_top_k=0.5"), request).ids ==
        complete(model, {.plan = parse_routing_plan("all")}, request).ids);
}

TEST_CASE("Speculation: completions are those without it, greedy and drawn, whatever the draft") {
  const auto format =
      GENERATE(PackedFormat::kFloat32, PackedFormat::kBfloat16, PackedFormat::kInt8);
  const auto dtype = format == PackedFormat::kFloat32 ? at::kFloat : at::kBFloat16;
  const std::string plan = GENERATE("all", "moe:top_k=3;moa:all", "threshold=0.6");
  const std::string draft = GENERATE("moe:top_k=1;moa:all", "moe:top_k=1;moa:top_k=1");
  const double temperature = GENERATE(0.0, 0.8);
  auto model = make_packed(format);
  const EngineOptions plain{.plan = parse_routing_plan(plan), .compute_dtype = dtype};
  auto options = options_of(plan, draft, GENERATE(1, 3, 8));
  options.compute_dtype = dtype;
  options.max_batch = GENERATE(1, 3);  // sequences that draft together
  std::vector<GenerateRequest> requests{request_of("To be", 25, temperature),
                                        request_of("", 1, temperature),
                                        request_of("a context that ends", 1000, temperature)};
  for (auto& request : requests) request.sampling.repetition_penalty = 1.1;
  const auto [completions, stats] = generate(model, kTokenizer, options, requests);
  int64_t n_generated = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto expected = complete(model, plain, requests[i]);
    CHECK(completions[i].ids == expected.ids);
    CHECK(completions[i].text == expected.text);
    CHECK(completions[i].finish_reason == expected.finish_reason);
    n_generated += static_cast<int64_t>(expected.ids.size());
  }
  CHECK(stats.generated_tokens == n_generated);
  CHECK(stats.decode_tokens == n_generated - 3);
  CHECK(stats.accepted_tokens <= stats.drafted_tokens);
  CHECK(stats.drafted_tokens > 0);
}

TEST_CASE("Speculation: every token drafted under the plan itself is accepted") {
  const auto request = request_of("x", 21, GENERATE(0.0, 1.0));
  const auto [completions, stats] =
      generate(make_packed(), kTokenizer, options_of("top_k=2", "top_k=2", 3), {request});
  REQUIRE(completions[0].finish_reason == FinishReason::kLength);
  CHECK(stats.accepted_tokens == stats.drafted_tokens);
  // 20 tokens after the first, four to a pass.
  CHECK(stats.drafted_tokens == 15);
  CHECK(stats.usage.active_experts().moe == std::vector<double>(2, 2.0));
}

TEST_CASE("Speculation: a stop text ends a completion in the middle of a draft") {
  auto request = request_of("To be", 25, 0.0);
  auto model = make_packed();
  const auto whole = complete(model, {}, request);
  REQUIRE(whole.text.size() > 6);
  request.stop = {whole.text.substr(4, 2)};
  std::string shown;
  auto options = options_of("all", "all", 8);
  options.on_text = [&](size_t, const std::string& text) { shown += text; };
  const auto completion = complete(model, options, request);
  CHECK(completion.finish_reason == FinishReason::kStop);
  CHECK(completion.text == whole.text.substr(0, whole.text.find(request.stop[0])));
  CHECK(shown == completion.text);
}

TEST_CASE("Speculation: it stops between passes when asked, and refuses empty drafts") {
  auto options = options_of("all", "top_k=1", 2);
  int n_asked = 0;
  options.stop = [&] { return ++n_asked == 4; };
  const auto completion = complete(make_packed(), options, request_of("x", 50, 0.0));
  CHECK(completion.finish_reason == FinishReason::kInterrupted);
  CHECK(completion.ids.size() >= 3);
  CHECK_THROWS_WITH(Engine(make_packed(), kTokenizer, options_of("all", "all", 0)),
                    Contains("at least 1 token"));
  options.continuous = false;
  CHECK_THROWS_WITH(Engine(make_packed(), kTokenizer, options), Contains("continuous"));
}

}  // namespace dsmoe
