#include "eval/likelihood.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

// One forward pass for every scored token, of the tokens before it, softmax in float64.
Likelihood by_definition(Transformer& model, const Continuation& it, const RoutingPlan& plan) {
  const at::NoGradGuard no_grad;
  const auto size = static_cast<int64_t>(it.tokens.size());
  const int64_t first = std::max<int64_t>(size - 1 - model->config().max_seq_len, 0);
  Likelihood likelihood;
  for (int64_t t = size - it.n_scored; t < size; ++t) {
    const std::vector<int64_t> context(it.tokens.begin() + first, it.tokens.begin() + t);
    const auto output = model->forward(at::tensor(context, at::kLong).unsqueeze(0), plan);
    const auto row = output.logits[0][-1].to(at::kDouble);
    const int64_t target = it.tokens[static_cast<size_t>(t)];
    likelihood.log_likelihood += (row[target] - row.logsumexp(0)).item<double>();
    likelihood.is_greedy = likelihood.is_greedy && row.argmax().item<int64_t>() == target;
  }
  return likelihood;
}

}  // namespace

TEST_CASE("score_continuations: equals a pass per token, whatever the batch") {
  auto model = make_tiny_model();
  model->eval();
  const ByteTokenizer tokenizer;
  std::vector<Continuation> texts;
  for (const auto* text :
       {"a", "some words", "of a longer text than the context of the model", "b"}) {
    texts.push_back(encode_continuation(tokenizer, "as in ", text));
    if (texts.back().n_scored > 24) texts.back().n_scored = 20;
  }
  const auto plan = GENERATE(as<std::string>(), "all", "top_k=2", "threshold=0.6");
  CAPTURE(plan);
  for (const int64_t batch : {1, 2, 10}) {
    const auto scored =
        score_continuations(model, texts, {.batch = batch, .plan = parse_routing_plan(plan)});
    REQUIRE(scored.size() == texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(i, batch);
      const auto expected = by_definition(model, texts[i], parse_routing_plan(plan));
      CHECK(scored[i].log_likelihood == Approx(expected.log_likelihood).epsilon(2e-6));
      CHECK(scored[i].is_greedy == expected.is_greedy);
    }
  }
}

TEST_CASE("score_continuations: recognises the greedy continuation") {
  auto model = make_tiny_model();
  model->eval();
  Continuation text{.tokens = {256, 5, 9}};
  for (int i = 0; i < 4; ++i) {
    const at::NoGradGuard no_grad;
    const std::vector<int64_t> context(text.tokens.begin(), text.tokens.end());
    const auto output =
        model->forward(at::tensor(context, at::kLong).unsqueeze(0), RoutingPolicy::all());
    text.tokens.push_back(static_cast<int32_t>(output.logits[0][-1].argmax().item<int64_t>()));
  }
  text.n_scored = 4;
  CHECK(score_continuations(model, {text}, {}).front().is_greedy);
  text.tokens.back() = text.tokens.back() == 7 ? 8 : 7;
  CHECK_FALSE(score_continuations(model, {text}, {}).front().is_greedy);
}

TEST_CASE("encode_continuation: blanks at the context's end belong to the text") {
  const ByteTokenizer tokenizer;
  const auto joined = encode_continuation(tokenizer, "ab ", "cd");
  CHECK(joined.tokens == std::vector<int32_t>{256, 'a', 'b', ' ', 'c', 'd'});
  CHECK(joined.n_scored == 3);
  CHECK(encode_continuation(tokenizer, "ab", "cd").n_scored == 2);
  CHECK(encode_continuation(tokenizer, "", "cd").n_scored == 2);  // from BOS
  REQUIRE_THROWS_AS(encode_continuation(tokenizer, "ab", ""), Error);
}

TEST_CASE(
    "encode_continuation: BOS comes first where the tokenizer adds it, or where nothing does") {
  class Letters final : public Tokenizer {
   public:
    explicit Letters(SpecialTokens special) : special_(std::move(special)) {}
    std::vector<int32_t> encode(std::string_view text) const override {
      return ByteTokenizer().encode(text);
    }
    std::string decode(const std::vector<int32_t>& ids) const override {
      return ByteTokenizer().decode(ids);
    }
    int64_t vocab_size() const override { return 257; }
    const SpecialTokens& special_tokens() const override { return special_; }
    std::string fingerprint() const override { return "test"; }

   private:
    SpecialTokens special_;
  };
  using Ids = std::vector<int32_t>;
  const Letters adds({.bos = 256, .adds_bos = true});
  const Letters has({.bos = 256});
  const Letters lacks({});
  CHECK(encode_continuation(adds, "a", "b").tokens == Ids{256, 'a', 'b'});
  CHECK(encode_continuation(adds, "", "ab").n_scored == 2);
  CHECK(encode_continuation(has, "a", "b").tokens == Ids{'a', 'b'});
  CHECK(encode_continuation(has, "a", "b").n_scored == 1);
  CHECK(encode_continuation(has, "", "ab").tokens == Ids{256, 'a', 'b'});
  CHECK(encode_continuation(has, "", "ab").n_scored == 2);
  CHECK(encode_continuation(lacks, "", "ab").tokens == Ids{'a', 'b'});
  CHECK(encode_continuation(lacks, "", "ab").n_scored == 1);
  CHECK_THROWS_AS(encode_continuation(lacks, "", "a"), Error);
}

TEST_CASE("score_continuations: refuses what does not fit") {
  auto model = make_tiny_model();
  const auto refuse = [&](Continuation text) {
    REQUIRE_THROWS_AS(score_continuations(model, {std::move(text)}, {}), Error);
  };
  refuse({.tokens = {256, 1}, .n_scored = 0});
  refuse({.tokens = {256, 1}, .n_scored = 2});
  refuse({.tokens = {256, 300}, .n_scored = 1});
  refuse({.tokens = std::vector<int32_t>(40, 1), .n_scored = 30});
}

TEST_CASE("score_continuations: a stop keeps those before the first that is missing") {
  auto model = make_tiny_model();
  const ByteTokenizer tokenizer;
  const std::vector<Continuation> texts = {encode_continuation(tokenizer, "", "a long one"),
                                           encode_continuation(tokenizer, "", "short"),
                                           encode_continuation(tokenizer, "", "the longest")};
  int n_asked = 0;
  const auto scored =
      score_continuations(model, texts, {.batch = 1, .stop = [&] { return ++n_asked > 2; }});
  CHECK(scored.size() == 1);  // the longest and the long one were scored
}

}  // namespace dsmoe
