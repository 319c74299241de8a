#include "eval/perplexity.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "common/error.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

constexpr int32_t kBos = 256;

EvalText some_text(const std::vector<int64_t>& lengths) {
  EvalText text;
  uint64_t state = 5;
  for (const int64_t length : lengths) {
    auto& sequence = text.sequences.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sequence.push_back(i % 17 == 0 ? kBos : static_cast<int32_t>(state >> 56));
    }
    text.n_bytes += length;
  }
  text.unscored_id = kBos;
  return text;
}

// -ln p(target) in float64 from the logits of one row, by the definition.
double nats(const at::Tensor& logits, int32_t target) {
  const auto row = logits.to(at::kDouble).contiguous();
  const auto* x = row.const_data_ptr<double>();
  double sum = 0;
  for (int64_t i = 0; i < row.numel(); ++i) sum += std::exp(x[i]);
  return std::log(sum) - x[target];
}

struct Sums {
  double nats = 0;
  int64_t tokens = 0;
};

// Target t of a sequence has the context that starts at the first window start, a multiple of
// stride, from which t is still within the window. One forward pass per target.
Sums score_one_by_one(Transformer& model,
                      const EvalText& text,
                      int64_t window,
                      int64_t stride,
                      const RoutingPlan& plan) {
  const at::NoGradGuard no_grad;
  Sums sums;
  for (const auto& sequence : text.sequences) {
    for (int64_t t = 1; t < static_cast<int64_t>(sequence.size()); ++t) {
      if (sequence[static_cast<size_t>(t)] == kBos) continue;
      int64_t begin = 0;
      while (t - begin > window) begin += stride;
      const std::vector<int64_t> context(sequence.begin() + begin, sequence.begin() + t);
      const auto output = model->forward(at::tensor(context, at::kLong).unsqueeze(0), plan);
      sums.nats += nats(output.logits[0][-1], sequence[static_cast<size_t>(t)]);
      ++sums.tokens;
    }
  }
  return sums;
}

}  // namespace

TEST_CASE("perplexity equals a float64 count, target by target") {
  auto model = make_tiny_model();
  model->eval();
  const auto text = some_text({100, 2, 1, 25, 24, 49});
  for (const auto& [window, stride] :
       {std::pair(24, 24), std::pair(24, 7), std::pair(10, 10), std::pair(10, 1)}) {
    for (const std::string plan_text :
         {"all", "top_k=2", "threshold=0.6", "moe:top_k=1;moa:top_k=2"}) {
      const RoutingPlan plan = parse_routing_plan(plan_text);
      const auto expected = score_one_by_one(model, text, window, stride, plan);
      for (const int64_t batch : {1, 3, 100}) {
        INFO(plan_text << " window " << window << " stride " << stride << " batch " << batch);
        const auto result = evaluate_perplexity(
            model, text, {.window = window, .stride = stride, .batch = batch, .plan = plan});
        CHECK(result.tokens_scored == expected.tokens);
        CHECK(result.nats_total == Approx(expected.nats).epsilon(2e-6));
        CHECK(result.usage.n_tokens() == expected.tokens);
        for (const auto execution : {Execution::kDense, Execution::kSparse}) {
          const auto other = evaluate_perplexity(
              model,
              text,
              {.window = window, .stride = stride, .batch = batch, .plan = plan.with(execution)});
          CHECK(other.nats_total == Approx(expected.nats).epsilon(2e-6));
        }
      }
    }
  }
}

TEST_CASE("perplexity figures follow from the sums") {
  PerplexityResult result;
  result.nats_total = 20 * std::log(3.0);
  result.tokens_scored = 20;
  result.n_bytes = 40;
  CHECK(result.perplexity() == Approx(3.0).epsilon(1e-12));
  CHECK(result.nats_per_token() == Approx(1.0986122886681098).epsilon(1e-12));
  CHECK(result.bits_per_byte() == Approx(std::log2(3.0) / 2).epsilon(1e-12));
}

TEST_CASE("an untrained model of zero weights is uniform over its vocabulary") {
  auto model = make_tiny_model(1, 0.0);
  const auto result = evaluate_perplexity(model, some_text({60}), {});
  CHECK(result.perplexity() == Approx(257.0).epsilon(1e-6));
}

TEST_CASE("perplexity: active experts are those of the scored tokens") {
  auto model = make_tiny_model();
  const auto result = evaluate_perplexity(
      model, some_text({50}), {.plan = parse_routing_plan("moe:top_k=2;moa:all")});
  const auto active = result.usage.active_experts();
  REQUIRE(active.moe.size() == 2);
  CHECK(active.moe[0] == 2.0);
  CHECK(active.moa[1] == 3.0);
}

TEST_CASE("perplexity: dropout is off, the mode is as before, a stop gives part of the count") {
  auto model = make_tiny_model();
  model->train();
  int n_asked = 0;
  const auto part = evaluate_perplexity(
      model, some_text({24 * 4 + 1}), {.batch = 1, .stop = [&] { return ++n_asked > 2; }});
  CHECK(model->is_training());
  CHECK_FALSE(part.complete);
  CHECK(part.usage.n_tokens() == part.tokens_scored);
  CHECK((part.tokens_scored > 24 && part.tokens_scored <= 48));
}

TEST_CASE("perplexity: what cannot be scored is refused") {
  auto model = make_tiny_model();
  const auto text = some_text({50});
  CHECK_THROWS_WITH(evaluate_perplexity(model, text, {.window = 25}),
                    Contains("[1, model.max_seq_len"));
  CHECK_THROWS_WITH(evaluate_perplexity(model, text, {.window = 8, .stride = 9}),
                    Contains("stride = 9"));
  CHECK_THROWS_WITH(evaluate_perplexity(model, some_text({1}), {}), Contains("at least one token"));
  auto bad = text;
  bad.sequences[0][3] = 257;
  CHECK_THROWS_WITH(evaluate_perplexity(model, bad, {}), Contains("token id 257"));
}

TEST_CASE("evaluate_perplexity: each of several texts has its own sums, which add to the whole") {
  auto model = make_tiny_model();
  const auto first = some_text({70, 30});
  auto second = some_text({41});
  for (auto& id : second.sequences[0]) id = (id + 7) % 250;
  EvalText both;
  append_group(both, first);
  append_group(both, second);
  // Windows of both texts share the first batch.
  const PerplexityOptions options{.batch = 16, .plan = RoutingPolicy::top_k(2)};
  const auto whole = evaluate_perplexity(model, both, options);
  REQUIRE(whole.groups.size() == 2);
  const auto check_part = [&](const PerplexityResult& part, const EvalText& text) {
    const auto alone = evaluate_perplexity(model, text, options);
    CHECK(part.tokens_scored == alone.tokens_scored);
    CHECK(part.nats_total == Approx(alone.nats_total).epsilon(1e-6));
    CHECK(part.n_bytes == text.n_bytes);
    CHECK(part.usage.n_tokens() == alone.usage.n_tokens());
    CHECK(part.usage.active_experts().moe == alone.usage.active_experts().moe);
    CHECK(alone.groups.empty());
  };
  check_part(whole.groups[0], first);
  check_part(whole.groups[1], second);
  CHECK(whole.groups[0].nats_total + whole.groups[1].nats_total == Approx(whole.nats_total));
}

TEST_CASE("evaluate_perplexity: progress counts the windows of each pass up to all") {
  auto model = make_tiny_model();
  std::vector<int64_t> done;
  PerplexityOptions options{.batch = 2};
  options.on_progress = [&](int64_t n, int64_t all) {
    CHECK(all == 5);  // of 24 targets, the last of 3
    done.push_back(n);
  };
  evaluate_perplexity(model, some_text({100}), options);
  CHECK(done == std::vector<int64_t>{2, 4, 5});
}

}  // namespace dsmoe
