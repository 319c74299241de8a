#include "model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "common/error.h"
#include "model/module_testing.h"
#include "support/tiny_model_config.h"

namespace dsmoe {
namespace {

constexpr int64_t kVocab = 23;

ModelConfig tiny_config() {
  auto config = tiny_model_config(kVocab);
  config.n_layers = 3;
  return config;
}

std::vector<ModelConfig> configs() {
  std::vector<ModelConfig> list(5, tiny_config());
  list[1].positions = PositionKind::kLearned;
  list[1].norm = NormKind::kLayerNorm;
  list[1].bias = true;
  list[1].tie_embeddings = false;
  list[1].ffn.activation = Activation::kSwiglu;
  list[2].attention.kind = AttentionKind::kDense;
  list[2].attention.n_heads = 6;
  list[2].attention.n_kv_heads = 2;
  list[2].ffn.router.kind = RouterKind::kLinear;
  list[3].ffn.kind = FfnKind::kDense;
  list[3].ffn.d_ffn = 11;
  list[3].attention.router.renormalise = true;
  list[4].ffn.kind = FfnKind::kPartitioned;
  list[4].ffn.activation = Activation::kSwiglu;
  list[4].ffn.d_ffn = 15;
  list[4].ffn.router.kind = RouterKind::kLinear;
  list[4].ffn.partition.layers = "0,2";
  list[4].ffn.partition.straight_through = false;  // with it, sparse execution has no gradients
  return list;
}

const std::vector<std::string> kPlans = {"all",
                                         "top_k=2",
                                         "threshold=0.5",
                                         "threshold=0.9",
                                         "threshold=1.1,max=1",
                                         "moe:top_k=1;moa:top_k=1",
                                         "moe:threshold=1.5;moa:top_k=2"};

size_t n_moe_layers(const ModelConfig& config) {
  if (config.ffn.kind == FfnKind::kPartitioned) return 2;  // layers 0 and 2
  return config.ffn.kind == FfnKind::kMoe ? 3 : 0;
}

Transformer make_model(const ModelConfig& config, uint64_t seed) {
  Transformer model(config);
  randomise(*model, seed, 0.4);
  model->to(at::kDouble);
  return model;
}

at::Tensor random_tokens(uint64_t seed, int64_t batch, int64_t seq) {
  const auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, kVocab, {batch, seq}, generator, at::TensorOptions().dtype(at::kLong));
}

}  // namespace

TEST_CASE("Transformer: dense and sparse execution agree for every selection",
          "[model][transformer]") {
  const at::NoGradGuard no_grad;
  for (const auto& config : configs()) {
    auto model = make_model(config, 141);
    for (const int64_t seq : {1, 7}) {
      const auto tokens = random_tokens(142, 3, seq);
      for (const auto& text : kPlans) {
        INFO(text << " seq " << seq);
        const auto plan = parse_routing_plan(text);
        const auto dense = model(tokens, plan.with(Execution::kDense));
        const auto sparse = model(tokens, plan.with(Execution::kSparse));
        REQUIRE(dense.logits.sizes() == at::IntArrayRef({3, seq, kVocab}));
        CHECK(max_difference(dense.logits, sparse.logits) < 1e-11);
        REQUIRE(dense.moe.size() == n_moe_layers(config));
        REQUIRE(dense.moa.size() == (config.attention.kind == AttentionKind::kMoa ? 3 : 0));
        for (size_t i = 0; i < dense.moe.size(); ++i) {
          CHECK(at::equal(dense.moe[i].selected, sparse.moe[i].selected));
        }
      }
    }
  }
}

TEST_CASE("Transformer: a later token does not change earlier logits", "[model][transformer]") {
  const at::NoGradGuard no_grad;
  for (const auto& config : configs()) {
    auto model = make_model(config, 143);
    const auto tokens = random_tokens(144, 2, 6);
    auto changed = tokens.clone();
    changed.select(1, 5).add_(1).remainder_(kVocab);
    for (const auto execution : {Execution::kDense, Execution::kSparse}) {
      const auto plan = parse_routing_plan("threshold=0.9").with(execution);
      const auto a = model(tokens, plan).logits;
      const auto b = model(changed, plan).logits;
      CHECK(max_difference(a.narrow(1, 0, 5), b.narrow(1, 0, 5)) < 1e-12);
      CHECK(max_difference(a.narrow(1, 5, 1), b.narrow(1, 5, 1)) > 1e-3);
    }
  }
}

TEST_CASE("Transformer: decoding with the cache equals the full forward", "[model][transformer]") {
  const at::NoGradGuard no_grad;
  for (const auto& config : configs()) {
    auto model = make_model(config, 145);
    const auto tokens = random_tokens(146, 2, 9);
    for (const auto& text : kPlans) {
      for (const auto execution : {Execution::kDense, Execution::kSparse, Execution::kAuto}) {
        INFO(text);
        const auto plan = parse_routing_plan(text).with(execution);
        const auto full = model(tokens, plan).logits;
        auto cache = model->make_cache(2, 9, at::kDouble);
        std::vector<at::Tensor> parts;
        int64_t begin = 0;
        for (const int64_t seq : {4, 1, 3, 1}) {
          ForwardOptions options;
          options.cache = &cache;
          parts.push_back(model(tokens.narrow(1, begin, seq), plan, options).logits);
          cache.advance(seq);
          begin += seq;
        }
        CHECK(max_difference(at::cat(parts, 1), full) < 1e-11);
      }
    }
  }
}

TEST_CASE("Transformer: keys cached under one policy serve another", "[model][transformer]") {
  const at::NoGradGuard no_grad;
  auto config = tiny_config();
  config.n_layers = 1;  // keys then depend on the tokens alone, not on the routing before them
  auto model = make_model(config, 147);
  const auto tokens = random_tokens(148, 2, 6);
  const auto full = model(tokens, RoutingPolicy::top_k(1)).logits;
  auto cache = model->make_cache(2, 6, at::kDouble);
  ForwardOptions options;
  options.cache = &cache;
  model(tokens.narrow(1, 0, 5), RoutingPolicy::all(), options);
  cache.advance(5);
  const auto last = model(tokens.narrow(1, 5, 1), RoutingPolicy::top_k(1), options).logits;
  CHECK(max_difference(last, full.narrow(1, 5, 1)) < 1e-11);
}

TEST_CASE("Transformer: a ragged batch equals each sequence alone", "[model][transformer]") {
  const at::NoGradGuard no_grad;
  const std::vector<int64_t> lengths{5, 2, 4};
  for (const auto& config : configs()) {
    auto model = make_model(config, 149);
    const auto prompts = random_tokens(150, 3, 5);  // entries past a length are padding
    const auto next = random_tokens(151, 3, 2);
    for (const auto& text : kPlans) {
      for (const auto execution : {Execution::kDense, Execution::kSparse}) {
        INFO(text);
        const auto plan = parse_routing_plan(text).with(execution);
        auto cache = model->make_cache(3, 8, at::kDouble);
        ForwardOptions options;
        options.cache = &cache;
        const auto first = model(prompts, plan, options).logits;
        cache.advance(lengths);
        REQUIRE(cache.length(1) == lengths[1]);
        const auto second = model(next, plan, options).logits;
        for (int64_t b = 0; b < 3; ++b) {
          const int64_t length = lengths[static_cast<size_t>(b)];
          const auto own =
              at::cat({prompts.narrow(0, b, 1).narrow(1, 0, length), next.narrow(0, b, 1)}, 1);
          const auto alone = model(own, plan).logits[0];
          CHECK(max_difference(first[b].narrow(0, 0, length), alone.narrow(0, 0, length)) < 1e-11);
          CHECK(max_difference(second[b], alone.narrow(0, length, 2)) < 1e-11);
        }
      }
    }
  }
}

TEST_CASE("Transformer: sparse gradients equal those of the masked dense run",
          "[model][transformer]") {
  for (const auto& config : configs()) {
    const auto tokens = random_tokens(152, 2, 5);
    for (const auto& text : kPlans) {
      INFO(text);
      const auto plan = parse_routing_plan(text);
      auto dense = make_model(config, 153);
      auto sparse = make_model(config, 153);
      const auto upstream = RandomTensors(154).normal({2, 5, kVocab});
      dense(tokens, plan.with(Execution::kDense)).logits.backward(upstream);
      sparse(tokens, plan.with(Execution::kSparse)).logits.backward(upstream);
      CHECK(parameter(*dense, "embedding").defined());
      CHECK(dense->named_parameters()["embedding"].grad().abs().max().item<double>() > 0);
      CHECK(max_gradient_difference(*dense, *sparse) < 1e-9);
    }
  }
}

TEST_CASE("Transformer: activation checkpointing changes neither logits nor gradients",
          "[model][transformer]") {
  for (auto config : configs()) {
    for (const double dropout : {0.0, 0.3}) {
      INFO("dropout " << dropout);
      config.dropout = dropout;
      const auto tokens = random_tokens(155, 2, 5);
      const auto run = [&](Transformer& model, Recompute recompute) {
        auto generator = at::detail::getDefaultCPUGenerator();
        generator.set_current_seed(156);
        ForwardOptions options;
        options.recompute = recompute;
        const auto output = model(tokens, RoutingPolicy::threshold(0.9), options);
        auto loss = (output.logits * RandomTensors(157).normal(output.logits.sizes())).sum();
        // The routing records carry gradients for the balance losses.
        for (const auto& record : output.moe) loss = loss + record.router_logits.square().sum();
        for (const auto& record : output.moa) loss = loss + record.router_probs.square().sum();
        loss.backward();
        return output;
      };
      auto plain = make_model(config, 158);
      const auto expected = run(plain, Recompute::kNone);
      for (const auto recompute : {Recompute::kAttention, Recompute::kBlock}) {
        auto checkpointed = make_model(config, 158);
        const auto output = run(checkpointed, recompute);
        CHECK(at::equal(output.logits, expected.logits));
        CHECK(max_gradient_difference(*plain, *checkpointed) < 1e-10);
      }
    }
  }
}

TEST_CASE("Transformer: init_weights depends on the seed only", "[model][transformer]") {
  Transformer a(tiny_config());
  Transformer b(tiny_config());
  Transformer c(tiny_config());
  init_weights(a, 7);
  init_weights(b, 7);
  init_weights(c, 8);
  for (const auto& item : a->named_parameters()) {
    CHECK(at::equal(item.value(), b->named_parameters()[item.key()]));
  }
  CHECK_FALSE(at::equal(parameter(*a, "embedding"), parameter(*c, "embedding")));
  const auto tokens = random_tokens(159, 1, 4);
  const auto probs = a(tokens, RoutingPolicy::all()).moe[0].router_logits;
  CHECK(probs.abs().max().item<float>() > 0);  // zero routers would never leave the MI trap
}

TEST_CASE("Transformer: wrong tokens and too long a context throw", "[model][transformer]") {
  auto model = make_model(tiny_config(), 160);
  CHECK_THROWS_AS(model(at::zeros({5}, at::kLong), RoutingPolicy::all()), c10::Error);
  CHECK_THROWS_AS(model(at::zeros({1, 5}, at::kInt), RoutingPolicy::all()), c10::Error);
  CHECK_THROWS_AS(
      model(at::zeros({1, tiny_config().max_seq_len + 1}, at::kLong), RoutingPolicy::all()), Error);
  auto cache = model->make_cache(1, 4, at::kDouble);
  ForwardOptions options;
  options.cache = &cache;
  CHECK_THROWS_AS(model(at::zeros({1, 5}, at::kLong), RoutingPolicy::all(), options), c10::Error);
}

}  // namespace dsmoe
