#include "infer/engine.h"

#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"
#include "common/random_seed.h"
#include "data/byte_tokenizer.h"
#include "model/packed_weights.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

const ByteTokenizer kBytes;

// The tiny model with a context of several blocks of a prompt.
Transformer make_packed(PackedFormat format) {
  auto config = tiny_model_config();
  config.max_seq_len = 200;
  Transformer model(config);
  init_weights(model, 1, 0.4);
  pack_weights(model, {.format = format});
  return model;
}

at::ScalarType compute_type(PackedFormat format) {
  return format == PackedFormat::kFloat32 ? at::kFloat : at::kBFloat16;
}

GenerateRequest request_of(int64_t n_prompt, int64_t max_tokens, double temperature = 0.0) {
  GenerateRequest request;
  for (int64_t i = 0; i < n_prompt; ++i) {
    request.prompt.push_back(
        static_cast<int32_t>(mix_bits(static_cast<uint64_t>(n_prompt * 1000 + i)) % 256));
  }
  request.max_tokens = max_tokens;
  request.sampling = {.temperature = temperature, .seed = static_cast<uint64_t>(n_prompt)};
  return request;
}

// Around blocks of 32 and parts of 64; some greedy, some drawn.
std::vector<GenerateRequest> ragged_requests() {
  return {request_of(1, 9),
          request_of(150, 12, 0.9),
          request_of(33, 1),
          request_of(64, 7, 1.1),
          request_of(5, 20),
          request_of(100, 5),
          request_of(196, 100),
          request_of(31, 3, 0.7)};
}

struct Run {
  std::vector<Ids> ids;
  std::vector<size_t> order;  // of the ends
  EngineStats stats;
};

Run run_all(Transformer model,
            const std::vector<GenerateRequest>& requests,
            EngineOptions options) {
  Run run;
  run.ids.resize(requests.size());
  options.on_completion = [&](size_t request, const Completion& completion) {
    run.ids[request] = completion.ids;
    run.order.push_back(request);
  };
  Engine engine(std::move(model), kBytes, options);
  for (const auto& request : requests) engine.submit(request);
  while (engine.step()) {
  }
  run.stats = engine.stats();
  return run;
}

EngineOptions options_of(const std::string& policy, PackedFormat format) {
  EngineOptions options;
  options.continuous = true;
  options.plan = parse_routing_plan(policy);
  options.compute_dtype = compute_type(format);
  options.prompt_chunk = 64;
  return options;
}

}  // namespace

TEST_CASE("Engine: a request's tokens are those it gives alone, bit for bit") {
  const auto requests = ragged_requests();
  for (const auto format : {PackedFormat::kFloat32, PackedFormat::kBfloat16, PackedFormat::kInt8}) {
    auto model = make_packed(format);
    for (const std::string policy : {"all", "top_k=2", "moe:threshold=0.6;moa:top_k=1"}) {
      INFO(policy << ", format " << static_cast<int>(format));
      const auto options = options_of(policy, format);
      const auto together = run_all(model, requests, options);
      CHECK(together.stats.largest_batch == 6);
      const EngineOptions whole{.plan = options.plan, .compute_dtype = options.compute_dtype};
      for (size_t i = 0; i < requests.size(); ++i) {
        INFO("request " << i);
        CHECK(run_all(model, {requests[i]}, options).ids[0] == together.ids[i]);
        // Which takes the prompt in one pass.
        CHECK(generate(model, kBytes, whole, {requests[i]}).completions[0].ids == together.ids[i]);
      }
      auto few = options;
      few.max_batch = 2;
      few.prompt_chunk = 32;
      CHECK(run_all(model, requests, few).ids == together.ids);
    }
  }
}

TEST_CASE("Engine: a request keeps its tokens among requests of other plans, bit for bit") {
  const std::vector<std::string> policies{"all", "top_k=2", "moe:threshold=0.6;moa:top_k=1"};
  for (const auto format : {PackedFormat::kFloat32, PackedFormat::kBfloat16, PackedFormat::kInt8}) {
    auto model = make_packed(format);
    auto requests = ragged_requests();
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].plan = parse_routing_plan(policies[i % policies.size()]);
    }
    auto options = options_of("all", format);
    const auto together = run_all(model, requests, options);
    CHECK(together.stats.largest_batch == 6);
    CHECK(together.stats.usage.n_tokens() == together.stats.decode_tokens);
    for (size_t i = 0; i < requests.size(); ++i) {
      INFO("request " << i);
      CHECK(run_all(model, {requests[i]}, options).ids[0] == together.ids[i]);
    }
  }
}

TEST_CASE("Engine: requests join while others run, and a prompt stalls nobody") {
  auto model = make_packed(PackedFormat::kBfloat16);
  auto options = options_of("top_k=2", PackedFormat::kBfloat16);
  options.prompt_chunk = 32;
  std::map<size_t, Ids> ids;
  options.on_completion = [&](size_t request, const Completion& completion) {
    ids[request] = completion.ids;
  };
  Engine engine(model, kBytes, options);
  REQUIRE(engine.submit(request_of(5, 20)) == 0);
  engine.step();
  engine.step();
  REQUIRE(engine.stats().generated_tokens == 2);
  REQUIRE(engine.submit(request_of(150, 3)) == 1);
  // Five steps for the new one's prompt; each gives the old one its token.
  for (int64_t i = 1; i <= 4; ++i) {
    engine.step();
    CHECK(engine.stats().generated_tokens == 2 + i);
  }
  engine.step();
  CHECK(engine.stats().generated_tokens == 2 + 5 + 1);
  while (engine.step()) {
  }
  CHECK_FALSE(engine.step());
  options.on_completion = {};
  CHECK(ids[0] == run_all(model, {request_of(5, 20)}, options).ids[0]);
  CHECK(ids[1] == run_all(model, {request_of(150, 3)}, options).ids[0]);
  CHECK(engine.stats().prompt_tokens == 155);
  CHECK(engine.stats().usage.n_tokens() == engine.stats().generated_tokens - 2);
}

TEST_CASE("Engine: keys and values stay within the budget; requests wait for room") {
  auto model = make_packed(PackedFormat::kBfloat16);
  auto options = options_of("all", PackedFormat::kBfloat16);
  const auto requests = std::vector<GenerateRequest>(7, request_of(20, 11));
  const auto free = run_all(model, requests, options);
  CHECK(free.stats.largest_batch == 7);
  // 20 + 11 - 1 tokens of each.
  const int64_t bytes = 30 * model->kv_shape(at::kBFloat16).bytes_per_token();
  CHECK(free.stats.peak_kv_bytes == 7 * bytes);
  options.kv_budget_bytes = 3 * bytes + bytes / 2;
  const auto bounded = run_all(model, requests, options);
  CHECK(bounded.stats.largest_batch == 3);
  CHECK(bounded.stats.peak_kv_bytes == 3 * bytes);
  CHECK(bounded.ids == free.ids);

  options.kv_budget_bytes = bytes - 1;
  Engine engine(model, kBytes, options);
  CHECK_THROWS_WITH(engine.submit(requests[0]), Contains("30 tokens") && Contains("--kv-budget"));
  CHECK(engine.submit(request_of(20, 10)) == 0);
}

TEST_CASE("Engine: a plan whose experts depend on the batch is refused") {
  auto model = make_packed(PackedFormat::kBfloat16);
  const auto options = options_of("moe:threshold_top_k=0.5;moa:all", PackedFormat::kBfloat16);
  CHECK_THROWS_WITH(Engine(model, kBytes, options),
                    Contains("--prompts: ") && Contains("threshold_top_k"));
}

TEST_CASE("Engine: a large request waits for room, not behind all that come after it") {
  auto model = make_packed(PackedFormat::kBfloat16);
  auto options = options_of("all", PackedFormat::kBfloat16);
  options.kv_budget_bytes = 120 * model->kv_shape(at::kBFloat16).bytes_per_token();
  const auto run =
      run_all(model,
              {request_of(20, 31), request_of(100, 4), request_of(20, 2), request_of(20, 2)},
              options);
  CHECK(run.order == std::vector<size_t>{0, 1, 2, 3});
}

TEST_CASE("Engine: an interruption ends what runs and what waits") {
  auto options = options_of("all", PackedFormat::kFloat32);
  options.max_batch = 1;
  int n_asked = 0;
  options.stop = [&] { return ++n_asked > 3; };
  std::vector<Completion> completions(2);
  options.on_completion = [&](size_t request, const Completion& completion) {
    completions[request] = completion;
  };
  Engine engine(make_packed(PackedFormat::kFloat32), kBytes, options);
  for (int i = 0; i < 2; ++i) engine.submit(request_of(5, 20));
  while (engine.step()) {
  }
  for (const auto& completion : completions) {
    CHECK(completion.finish_reason == FinishReason::kInterrupted);
  }
  CHECK(completions[0].ids.size() == 3);
  CHECK(completions[1].ids.empty());
}

TEST_CASE("Engine: options and requests out of range are refused") {
  auto model = make_packed(PackedFormat::kFloat32);
  const auto refused = [&](const std::function<void(EngineOptions&)>& change) {
    auto options = options_of("all", PackedFormat::kFloat32);
    change(options);
    CHECK_THROWS_AS(Engine(model, kBytes, options), Error);
  };
  refused([](auto& options) { options.prompt_chunk = 48; });
  refused([](auto& options) { options.max_batch = 0; });
  refused([](auto& options) { options.kv_budget_bytes = 0; });
  Engine engine(model, kBytes, options_of("all", PackedFormat::kFloat32));
  auto unfit = request_of(5, 1);
  unfit.plan = RoutingPolicy::top_k(100);
  CHECK_THROWS_AS(engine.submit(unfit), Error);
  unfit.plan = RoutingPolicy::threshold_top_k(0.5);
  CHECK_THROWS_WITH(engine.submit(unfit), Contains("threshold_top_k"));
  CHECK_THROWS_WITH(engine.submit({}), Contains("at least one token"));
  CHECK_THROWS_WITH(engine.submit(request_of(200, 1)), Contains("leaves no room"));
  CHECK_FALSE(engine.step());
}

}  // namespace dsmoe
