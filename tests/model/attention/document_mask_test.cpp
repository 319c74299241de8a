#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "model/module_testing.h"
#include "model/transformer.h"
#include "support/tiny_model_config.h"

namespace dsmoe {
namespace {

constexpr int64_t kVocab = 23;
using Lengths = std::vector<int64_t>;  // of the documents of one sequence

// Every row is packed with documents of other lengths; 13 tokens each.
const std::vector<Lengths> kRows = {{5, 1, 7}, {13}, {1, 2, 4, 6}};

std::vector<ModelConfig> configs() {
  std::vector<ModelConfig> list(3, tiny_model_config(kVocab));
  list[1].attention.kind = AttentionKind::kDense;
  list[1].attention.n_heads = 6;
  list[1].attention.n_kv_heads = 2;
  list[2].positions = PositionKind::kLearned;
  list[2].bias = true;
  return list;
}

Transformer make_model(const ModelConfig& config) {
  Transformer model(config);
  randomise(*model, 3, 0.4);
  model->to(at::kDouble);
  return model;
}

at::Tensor random_ids(uint64_t seed) {
  const auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, kVocab, {3, 13}, generator, at::TensorOptions().dtype(at::kLong));
}

at::Tensor positions_of_rows() {
  std::vector<at::Tensor> rows;
  for (const auto& lengths : kRows) {
    std::vector<at::Tensor> parts;
    for (const int64_t length : lengths) parts.push_back(at::arange(length, at::kLong));
    rows.push_back(at::cat(parts));
  }
  return at::stack(rows);
}

at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& targets) {
  return at::cross_entropy_loss(logits.flatten(0, 1), targets.flatten(), {}, at::Reduction::Sum);
}

// One forward pass per document: logits in the packed layout, gradients summed.
at::Tensor run_apart(Transformer& model,
                     const RoutingPlan& plan,
                     const at::Tensor& tokens,
                     const at::Tensor& targets) {
  std::vector<at::Tensor> rows;
  for (size_t row = 0; row < kRows.size(); ++row) {
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (const int64_t length : kRows[row]) {
      const auto part = [&](const at::Tensor& t) {
        return t.narrow(0, static_cast<int64_t>(row), 1).narrow(1, begin, length);
      };
      const auto output = model->forward(part(tokens), plan);
      loss_of(output.logits, part(targets)).backward();
      parts.push_back(output.logits.detach());
      begin += length;
    }
    rows.push_back(at::cat(parts, 1));
  }
  return at::cat(rows);
}

}  // namespace

TEST_CASE("document mask: packed documents have the logits and gradients of separate ones",
          "[model][documents]") {
  const auto tokens = random_ids(1);
  const auto targets = random_ids(2);
  for (const auto& config : configs()) {
    for (const std::string policy : {"all", "top_k=2", "moe:top_k=1;moa:top_k=1"}) {
      if (config.attention.kind == AttentionKind::kDense && policy.starts_with("moe:")) continue;
      for (const auto execution : {Execution::kDense, Execution::kSparse}) {
        INFO(policy << (execution == Execution::kSparse ? " sparse" : " dense"));
        const auto plan = parse_routing_plan(policy).with(execution);
        auto apart = make_model(config);
        auto packed = make_model(config);
        const auto expected = run_apart(apart, plan, tokens, targets);
        ForwardOptions options;
        options.document_positions = positions_of_rows();
        const auto output = packed->forward(tokens, plan, options);
        loss_of(output.logits, targets).backward();
        CHECK(max_difference(output.logits.detach(), expected) < 1e-12);
        CHECK(max_gradient_difference(*packed, *apart) < 1e-11);

        // Without the mask documents do see one another: the comparison above can fail.
        const at::NoGradGuard no_grad;
        CHECK(max_difference(packed->forward(tokens, plan).logits, expected) > 1e-3);
      }
    }
  }
}

TEST_CASE("document mask: one document is the plain pass; recomputation keeps the mask",
          "[model][documents]") {
  const auto tokens = random_ids(1);
  auto model = make_model(tiny_model_config(kVocab));
  const auto plan = parse_routing_plan("all");
  ForwardOptions options;
  options.document_positions = at::arange(13, at::kLong).expand({3, 13});
  {
    const at::NoGradGuard no_grad;
    CHECK(max_difference(model->forward(tokens, plan, options).logits,
                         model->forward(tokens, plan).logits) < 1e-12);
  }
  options.document_positions = positions_of_rows();
  auto again = make_model(tiny_model_config(kVocab));
  loss_of(model->forward(tokens, plan, options).logits, tokens).backward();
  options.recompute = Recompute::kBlock;
  loss_of(again->forward(tokens, plan, options).logits, tokens).backward();
  CHECK(max_gradient_difference(*again, *model) < 1e-12);
}

TEST_CASE("document mask: positions that name no document of the sequence are refused",
          "[model][documents]") {
  const auto tokens = random_ids(1);
  auto model = make_model(tiny_model_config(kVocab));
  const auto plan = parse_routing_plan("all");
  const auto forward = [&](const at::Tensor& positions) {
    ForwardOptions options;
    options.document_positions = positions;
    model->forward(tokens, plan, options);
  };
  CHECK_THROWS_AS(forward(at::zeros_like(tokens).narrow(1, 0, 12)), c10::Error);
  CHECK_THROWS_AS(forward(at::zeros_like(tokens) + 1), c10::Error);
  CHECK_THROWS_AS(forward(at::zeros_like(tokens) - 1), c10::Error);
  CHECK_THROWS_AS(forward(positions_of_rows().to(at::kInt)), c10::Error);
  auto cache = model->make_cache(3, 16, at::kDouble);
  ForwardOptions options;
  options.document_positions = positions_of_rows();
  options.cache = &cache;
  CHECK_THROWS_AS(model->forward(tokens, plan, options), c10::Error);
}

}  // namespace dsmoe
