#include "eval/divergence.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "common/error.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

constexpr int32_t kDivergenceBoundary = 256;

EvalText divergence_text() {
  EvalText text;
  for (const int64_t length : {60, 13}) {
    auto& sequence = text.sequences.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      sequence.push_back(i % 19 == 0 ? kDivergenceBoundary : static_cast<int32_t>(i * i * 7 % 251));
    }
  }
  text.n_bytes = 73;
  text.unscored_id = kDivergenceBoundary;
  return text;
}

std::vector<double> probabilities(const at::Tensor& logits) {
  const auto row = logits.to(at::kDouble).contiguous();
  const std::vector<double> x(row.const_data_ptr<double>(),
                              row.const_data_ptr<double>() + row.numel());
  std::vector<double> p(x.size());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += p[i] = std::exp(x[i]);
  for (auto& value : p) value /= sum;
  return p;
}

struct Expected {
  double kl = 0;
  double kl_max = 0;
  int64_t n_same = 0;
  int64_t n_tokens = 0;
};

// By the definition, one forward pass and one row of probabilities per target.
Expected brute_force(const ModelUnderPlan& model,
                     const ModelUnderPlan& reference,
                     const EvalText& text,
                     int64_t window) {
  const at::NoGradGuard no_grad;
  Expected expected;
  for (const auto& sequence : text.sequences) {
    for (int64_t t = 1; t < static_cast<int64_t>(sequence.size()); ++t) {
      if (sequence[static_cast<size_t>(t)] == kDivergenceBoundary) continue;
      const int64_t begin = (t - 1) / window * window;
      const std::vector<int64_t> ids(sequence.begin() + begin, sequence.begin() + t);
      const auto context = at::tensor(ids, at::kLong).unsqueeze(0);
      const auto q = probabilities(model.model->forward(context, model.plan).logits[0][-1]);
      const auto p = probabilities(reference.model->forward(context, reference.plan).logits[0][-1]);
      double kl = 0;
      for (size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]);
      expected.kl += kl;
      expected.kl_max = std::max(expected.kl_max, kl);
      expected.n_same += std::max_element(p.begin(), p.end()) - p.begin() ==
                                 std::max_element(q.begin(), q.end()) - q.begin()
                             ? 1
                             : 0;
      ++expected.n_tokens;
    }
  }
  return expected;
}

}  // namespace

TEST_CASE("KL divergence and top-1 agreement equal a float64 count, target by target") {
  auto first = make_tiny_model(1);
  auto second = make_tiny_model(2);
  first->eval();
  second->eval();
  const auto text = divergence_text();
  const RoutingPlan all = RoutingPolicy::all();
  const auto sparse = parse_routing_plan("moe:top_k=1;moa:top_k=2");
  const std::vector<std::pair<ModelUnderPlan, ModelUnderPlan>> pairs = {
      {{first, sparse}, {first, all}},
      {{first, all}, {first, sparse}},
      {{first, all}, {second, sparse}}};
  for (const auto& [model, reference] : pairs) {
    const auto expected = brute_force(model, reference, text, 10);
    for (const int64_t batch : {1, 4}) {
      CAPTURE(batch);
      const auto got = compare_predictions(model, reference, text, {.window = 10, .batch = batch});
      CHECK(got.model.tokens_scored == expected.n_tokens);
      CHECK(got.kl_total == Approx(expected.kl).epsilon(1e-5));
      CHECK(got.kl_max == Approx(expected.kl_max).epsilon(1e-5));
      CHECK(got.n_same_top == expected.n_same);
      CHECK(got.top1_agreement() ==
            Approx(static_cast<double>(expected.n_same) / static_cast<double>(expected.n_tokens)));
    }
  }
}

TEST_CASE("a model does not diverge from itself, and both perplexities are those of eval") {
  auto model = make_tiny_model();
  const auto text = divergence_text();
  const RoutingPlan plan = RoutingPolicy::top_k(2);
  const auto same = compare_predictions({model, plan}, {model, plan}, text, {});
  CHECK(same.kl_total == 0.0);
  CHECK(same.top1_agreement() == 1.0);
  const auto other = compare_predictions({model, plan}, {model, RoutingPolicy::all()}, text, {});
  CHECK(other.model.nats_total == evaluate_perplexity(model, text, {.plan = plan}).nats_total);
  CHECK(other.reference.nats_total == evaluate_perplexity(model, text, {}).nats_total);
  CHECK(other.kl_per_token() > 0.0);
}

TEST_CASE("KL divergence: models that cannot be compared are refused, a stop is told") {
  auto model = make_tiny_model();
  const RoutingPlan all = RoutingPolicy::all();
  auto other = make_tiny_model(1, 0.4, 300);
  CHECK_THROWS_WITH(compare_predictions({model, all}, {other, all}, divergence_text(), {}),
                    Contains("a vocabulary of 257, got one of 300"));
  int n_asked = 0;
  const auto part =
      compare_predictions({model, all}, {model, all}, divergence_text(), {.batch = 1, .stop = [&] {
                                                                            return ++n_asked > 1;
                                                                          }});
  CHECK_FALSE(part.model.complete);
  CHECK(part.model.tokens_scored < 30);
}

TEST_CASE("compare_predictions: both models have the sums of each of several texts") {
  auto model = make_tiny_model();
  auto other = make_tiny_model(2);
  EvalText both;
  append_group(both, divergence_text());
  append_group(both, divergence_text());
  std::vector<int64_t> done;
  PerplexityOptions options;
  options.on_progress = [&](int64_t n, int64_t) { done.push_back(n); };
  const auto sums = compare_predictions(
      {model, RoutingPolicy::all()}, {other, RoutingPolicy::all()}, both, options);
  REQUIRE(sums.model.groups.size() == 2);
  REQUIRE(sums.reference.groups.size() == 2);
  CHECK(sums.model.groups[0].nats_total == Approx(sums.model.nats_total / 2));
  CHECK(sums.reference.groups[1].nats_total == Approx(sums.reference.nats_total / 2));
  REQUIRE_FALSE(done.empty());
  CHECK(done.back() == 2 * (3 + 1));  // windows of 60 and of 13 tokens
}

}  // namespace dsmoe
