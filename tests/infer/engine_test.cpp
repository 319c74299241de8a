#include "infer/engine.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "model/packed_weights.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

const ByteTokenizer kTokenizer;

GenerateRequest request_for(const std::string& prompt, int64_t max_tokens = 12) {
  GenerateRequest request;
  request.prompt = {256};
  for (const int32_t id : kTokenizer.encode(prompt)) request.prompt.push_back(id);
  request.max_tokens = max_tokens;
  return request;
}

const std::vector<GenerateRequest> kRequests = {request_for("To be"),
                                                request_for(""),
                                                request_for("a longer one", 5),
                                                request_for("x", 1)};

std::vector<Completion> complete(const std::vector<GenerateRequest>& requests,
                                 const std::string& policy = "all",
                                 Execution execution = Execution::kAuto) {
  EngineOptions options;
  options.plan = parse_routing_plan(policy).with(execution);
  return generate(make_tiny_model(), kTokenizer, options, requests).completions;
}

// By the definition, without a cache: a forward pass over the whole text for every token.
Completion complete_without_cache(const GenerateRequest& request, const RoutingPlan& plan) {
  const at::NoGradGuard no_grad;
  auto model = make_tiny_model();
  model->eval();
  Sequence sequence(request, kTokenizer, nullptr);
  while (!sequence.is_finished()) {
    const std::vector<int64_t> ids(sequence.ids().begin(), sequence.ids().end());
    const auto output = model->forward(at::tensor(ids, at::kLong).unsqueeze(0), plan);
    sequence.extend(output.logits[0][-1], kTokenizer, 24);
  }
  return sequence.completion();
}

// The greedy ids by the definition: a forward pass over the whole text for every token.
Ids greedy_ids(const GenerateRequest& request, const RoutingPlan& plan) {
  const at::NoGradGuard no_grad;
  auto model = make_tiny_model();
  model->eval();
  std::vector<int64_t> ids(request.prompt.begin(), request.prompt.end());
  Ids generated;
  for (int64_t i = 0; i < request.max_tokens; ++i) {
    const auto output = model->forward(at::tensor(ids, at::kLong).unsqueeze(0), plan);
    generated.push_back(static_cast<int32_t>(output.logits[0][-1].argmax().item<int64_t>()));
    ids.push_back(generated.back());
    if (generated.back() == 256 || ids.size() == 24) break;
  }
  return generated;
}

}  // namespace

TEST_CASE("greedy ids: by definition, with and without cache, alone and in a batch") {
  for (const std::string policy :
       {"all", "top_k=2", "threshold=0.6", "threshold=0.9,max=1", "moe:top_k=1;moa:top_k=1"}) {
    INFO(policy);
    const RoutingPlan plan = parse_routing_plan(policy);
    const auto batch = complete(kRequests, policy);
    const auto dense = complete(kRequests, policy, Execution::kDense);
    const auto sparse = complete(kRequests, policy, Execution::kSparse);
    for (size_t i = 0; i < kRequests.size(); ++i) {
      const auto expected = greedy_ids(kRequests[i], plan);
      CHECK(batch[i].ids == expected);
      CHECK(complete_without_cache(kRequests[i], plan).ids == expected);
      CHECK(dense[i].ids == expected);
      CHECK(sparse[i].ids == expected);
      CHECK(complete({kRequests[i]}, policy)[0].ids == expected);
    }
  }
}

TEST_CASE("packed weights: greedy ids by definition; alone and in a batch the same in bfloat16") {
  const auto complete_packed = [](const std::vector<GenerateRequest>& requests,
                                  const std::string& policy,
                                  PackedFormat format) {
    auto model = make_tiny_model();
    pack_weights(model, {.format = format});
    EngineOptions options;
    options.plan = parse_routing_plan(policy);
    if (format == PackedFormat::kBfloat16) options.compute_dtype = at::kBFloat16;
    return generate(model, kTokenizer, options, requests).completions;
  };
  for (const std::string policy : {"all", "top_k=2", "threshold=0.6"}) {
    INFO(policy);
    const auto wide = complete_packed(kRequests, policy, PackedFormat::kFloat32);
    const auto narrow = complete_packed(kRequests, policy, PackedFormat::kBfloat16);
    for (size_t i = 0; i < kRequests.size(); ++i) {
      CHECK(wide[i].ids == greedy_ids(kRequests[i], parse_routing_plan(policy)));
      CHECK(complete_packed({kRequests[i]}, policy, PackedFormat::kBfloat16)[0].ids ==
            narrow[i].ids);
    }
  }
}

TEST_CASE("sampled ids do not depend on the cache and differ between sequences and seeds") {
  auto requests = std::vector<GenerateRequest>(3, request_for("To be"));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sampling = {.temperature = 1.0, .seed = 4};
    requests[i].draw = static_cast<int64_t>(i);
  }
  const auto with_cache = complete(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    CHECK(with_cache[i].ids == complete_without_cache(requests[i], RoutingPolicy::all()).ids);
  }
  CHECK(with_cache[0].ids != with_cache[1].ids);
  requests[0].sampling.seed = 5;
  CHECK(complete(requests)[0].ids != with_cache[0].ids);
}

TEST_CASE("a completion ends at its length, at the context, at a stop text") {
  const auto free = complete({request_for("To be", 10)})[0];
  CHECK(free.finish_reason == FinishReason::kLength);
  CHECK(free.ids.size() == 10);
  CHECK(kTokenizer.decode(free.ids) == free.text);

  const auto full = complete({request_for("To be", 1000)})[0];
  CHECK(full.finish_reason == FinishReason::kContext);
  CHECK(full.ids.size() == 24 - 6);

  auto request = request_for("To be", 10);
  request.stop = {free.text.substr(4, 2)};
  const auto stopped = complete({request})[0];
  CHECK(stopped.finish_reason == FinishReason::kStop);
  CHECK(stopped.text == free.text.substr(0, free.text.find(request.stop[0])));
  CHECK(stopped.ids.size() < 10);
}

TEST_CASE("EOS ends a completion and is not part of its text") {
  // Greedy decoding of this model repeats one id at some point; make that id EOS.
  class Tokenizer257 final : public Tokenizer {
   public:
    explicit Tokenizer257(int32_t eos) : special_{.bos = 256, .adds_bos = true, .eos = {eos}} {}
    Ids encode(std::string_view text) const override { return kTokenizer.encode(text); }
    std::string decode(const Ids& ids) const override { return kTokenizer.decode(ids); }
    int64_t vocab_size() const override { return 257; }
    const SpecialTokens& special_tokens() const override { return special_; }
    std::string fingerprint() const override { return "test"; }

   private:
    SpecialTokens special_;
  };
  const auto free = complete({request_for("To be")})[0];
  const Tokenizer257 tokenizer(free.ids[3]);
  const auto ended =
      generate(make_tiny_model(), tokenizer, {}, {request_for("To be")}).completions[0];
  const auto first = static_cast<size_t>(std::find(free.ids.begin(), free.ids.end(), free.ids[3]) -
                                         free.ids.begin());
  CHECK(ended.finish_reason == FinishReason::kEos);
  CHECK(ended.ids == Ids(free.ids.begin(), free.ids.begin() + static_cast<ptrdiff_t>(first) + 1));
  CHECK(ended.text == free.text.substr(0, first));
}

TEST_CASE("rows without a token are never drawn, but for an EOS; any EOS ends a completion") {
  // The tiny model with more rows than the tokenizer; the ids past it are drawn where nothing
  // forbids.
  class OfMany final : public Tokenizer {
   public:
    OfMany(int64_t n_tokens, std::vector<int32_t> eos)
        : n_tokens_(n_tokens), special_{.bos = 256, .adds_bos = true, .eos = std::move(eos)} {}
    Ids encode(std::string_view text) const override { return kTokenizer.encode(text); }
    std::string decode(const Ids& ids) const override { return kTokenizer.decode(ids); }
    int64_t vocab_size() const override { return n_tokens_; }
    bool has_token(int64_t id) const override { return id >= 0 && id < n_tokens_ && id != 7; }
    const SpecialTokens& special_tokens() const override { return special_; }
    std::string fingerprint() const override { return "test"; }

   private:
    int64_t n_tokens_;
    SpecialTokens special_;
  };
  constexpr int64_t kRows = 600;
  const auto complete_by = [&](const OfMany& tokenizer, uint64_t seed) {
    auto request = request_for("To be", 17);
    request.sampling = {.temperature = 2.0, .seed = seed};
    return generate(make_tiny_model(1, 0.4, kRows), tokenizer, {}, {request}).completions[0];
  };
  const OfMany all(kRows, {});
  const OfMany few(257, {});
  const OfMany ending(257, {500, 100, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510});
  bool some_past = false;
  bool some_ended = false;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    for (const int32_t id : complete_by(all, seed).ids) some_past = some_past || id >= 257;
    for (const int32_t id : complete_by(few, seed).ids) CHECK((id < 257 && id != 7));
    const auto ended = complete_by(ending, seed);
    for (size_t i = 0; i < ended.ids.size(); ++i) {
      const bool is_last = i + 1 == ended.ids.size();
      const bool is_end = ending.special_tokens().is_eos(ended.ids[i]);
      CHECK((ended.ids[i] < 257 || is_end));
      if (is_end) CHECK((is_last && ended.finish_reason == FinishReason::kEos));
      some_ended = some_ended || is_end;
    }
  }
  CHECK(some_past);
  CHECK(some_ended);
}

TEST_CASE("streamed text, joined, is the completion's text") {
  std::vector<std::string> shown(kRequests.size());
  EngineOptions options;
  options.on_text = [&](size_t request, const std::string& text) { shown[request] += text; };
  const auto [completions, stats] = generate(make_tiny_model(), kTokenizer, options, kRequests);
  int64_t n_generated = 0;
  for (size_t i = 0; i < completions.size(); ++i) {
    CHECK(shown[i] == completions[i].text);
    n_generated += static_cast<int64_t>(completions[i].ids.size());
  }
  CHECK(stats.generated_tokens == n_generated);
  CHECK(stats.decode_tokens == n_generated - static_cast<int64_t>(kRequests.size()));
  CHECK(stats.prompt_tokens == 6 + 1 + 13 + 2);
  CHECK(stats.usage.n_tokens() == stats.decode_tokens);
  CHECK(stats.decode_seconds > 0);
}

TEST_CASE("generation can be interrupted between tokens") {
  int n_asked = 0;
  EngineOptions options;
  options.stop = [&] { return ++n_asked > 3; };
  const auto completion =
      generate(make_tiny_model(), kTokenizer, options, {request_for("To be")}).completions[0];
  CHECK(completion.finish_reason == FinishReason::kInterrupted);
  CHECK(completion.ids.size() == 3);
}

TEST_CASE(
    "requests beyond max_batch, and those of another plan, start when the others have ended") {
  auto requests = kRequests;
  requests[1].plan = parse_routing_plan("top_k=1");
  requests[3].plan = parse_routing_plan("top_k=1");
  EngineOptions options{.plan = parse_routing_plan("top_k=2"), .max_batch = 2};
  const auto [completions, stats] = generate(make_tiny_model(), kTokenizer, options, requests);
  CHECK(stats.largest_batch == 1);  // no neighbours have one plan
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto plan = requests[i].plan.value_or(options.plan);
    CHECK(completions[i].ids == greedy_ids(requests[i], plan));
  }
  const auto pairs = generate(make_tiny_model(), kTokenizer, options, kRequests);
  CHECK(pairs.stats.largest_batch == 2);
  for (size_t i = 0; i < requests.size(); ++i) {
    CHECK(pairs.completions[i].ids == greedy_ids(kRequests[i], options.plan));
  }
}

TEST_CASE("prompts that cannot be continued are refused") {
  CHECK(complete({}).empty());
  GenerateRequest empty;
  CHECK_THROWS_WITH(complete({empty}), Contains("at least one token"));
  CHECK_THROWS_WITH(complete({request_for(std::string(23, 'x'))}),
                    Contains("24 tokens leaves no room"));
  CHECK_NOTHROW(complete({request_for(std::string(22, 'x'))}));
  auto request = request_for("x");
  request.prompt.push_back(257);
  CHECK_THROWS_WITH(complete({request}), Contains("token id 257"));
  request = request_for("x");
  request.stop = {""};
  CHECK_THROWS_WITH(complete({request}), Contains("stop texts"));
  CHECK_THROWS_AS(complete({request_for("x", 0)}), Error);
  request = request_for("x");
  request.sampling.top_p = 2;
  CHECK_THROWS_AS(complete({request}), Error);
}

}  // namespace dsmoe
