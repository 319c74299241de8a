#include "model/packed_weights.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

#include "common/thread_pool.h"
#include "model/module_testing.h"
#include "model/transformer.h"
#include "support/tiny_model_config.h"

namespace dsmoe {
namespace {

ModelConfig moa_config() {
  auto config = tiny_model_config(37);
  config.d_model = 20;
  config.max_seq_len = 40;
  config.attention.head_dim = 6;
  config.ffn.d_expert = 7;
  return config;
}

// Every kind of attention, FFN, router, norm and activation at least once.
std::vector<ModelConfig> configs() {
  std::vector<ModelConfig> list(7, moa_config());
  list[1].positions = PositionKind::kLearned;
  list[1].norm = NormKind::kLayerNorm;
  list[1].bias = true;
  list[1].tie_embeddings = false;
  list[1].ffn.activation = Activation::kSwiglu;
  list[2].attention.kind = AttentionKind::kDense;
  list[2].attention.n_heads = 6;
  list[2].attention.n_kv_heads = 2;
  list[2].attention.qk_norm = true;
  list[2].ffn.router.kind = RouterKind::kLinear;
  list[2].ffn.router.renormalise = true;
  list[3].ffn.kind = FfnKind::kDense;
  list[3].ffn.activation = Activation::kGelu;
  list[3].ffn.d_ffn = 11;
  list[3].attention.router.renormalise = true;
  list[4].ffn.kind = FfnKind::kPartitioned;
  list[4].ffn.activation = Activation::kSwiglu;
  list[4].ffn.d_ffn = 35;
  list[4].ffn.router.kind = RouterKind::kLinear;
  list[4].ffn.partition.layers = "0-0";
  list[4].ffn.partition.zero_active = ZeroActive::kArgmax;
  list[5].ffn = list[4].ffn;
  list[5].ffn.partition.gates = RouterActivation::kSoftmax;
  list[5].ffn.partition.straight_through = false;
  list[5].ffn.partition.layers = "all";
  list[6].ffn.activation = Activation::kReluSquared;
  list[6].output_bias = true;
  list[6].attention.heads_per_expert = 1;
  return list;
}

Transformer make_model(const ModelConfig& config) {
  Transformer model(config);
  randomise(*model, 5, 0.3);
  model->eval();
  return model;
}

Transformer make_packed(const ModelConfig& config, PackedFormat format) {
  auto model = make_model(config);
  pack_weights(model, {.format = format});
  return model;
}

at::Tensor make_tokens(int64_t batch, int64_t seq) {
  const auto generator = at::detail::createCPUGenerator(7);
  return at::randint(0, 37, {batch, seq}, generator, at::TensorOptions(at::kLong));
}

at::Tensor logits_of(Transformer& model,
                     const at::Tensor& tokens,
                     const RoutingPolicy& policy,
                     at::ScalarType dtype = at::kFloat) {
  const at::NoGradGuard no_grad;
  return model->forward(tokens, policy, {.compute_dtype = dtype}).logits;
}

// The prompt in one pass, then token by token.
at::Tensor decode(Transformer& model,
                  const at::Tensor& tokens,
                  int64_t prompt,
                  const RoutingPolicy& policy,
                  at::ScalarType dtype = at::kFloat) {
  const at::NoGradGuard no_grad;
  auto cache = model->make_cache(tokens.size(0), tokens.size(1), dtype);
  std::vector<at::Tensor> logits;
  for (int64_t at = 0; at < tokens.size(1);) {
    const int64_t n = at == 0 ? prompt : 1;
    logits.push_back(
        model->forward(tokens.narrow(1, at, n), policy, {.compute_dtype = dtype, .cache = &cache})
            .logits);
    cache.advance(n);
    at += n;
  }
  return at::cat(logits, 1);
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  return max_difference(a, b) / std::max(1.0, b.abs().max().item<double>());
}

const std::vector<RoutingPolicy> kPolicies = {RoutingPolicy::all(),
                                              RoutingPolicy::top_k(2),
                                              RoutingPolicy::threshold(0.9),
                                              RoutingPolicy::threshold(0.7, 2),
                                              RoutingPolicy::threshold(5),  // no expert at all
                                              RoutingPolicy::threshold_top_k(0.9)};
const PackedFormat kFormats[] = {PackedFormat::kFloat32,
                                 PackedFormat::kBfloat16,
                                 PackedFormat::kInt8};

}  // namespace

TEST_CASE("pack_weights: a packed model equals the original model", "[model][packed]") {
  const auto tokens = make_tokens(3, 11);
  for (const auto& config : configs()) {
    auto model = make_model(config);
    auto packed = make_packed(config, PackedFormat::kFloat32);
    for (const auto& policy : kPolicies) {
      const auto expected = logits_of(model, tokens, policy);
      for (const auto execution : {Execution::kAuto, Execution::kDense, Execution::kSparse}) {
        INFO(policy.to_string() << ", execution " << static_cast<int>(execution));
        CHECK(relative_difference(logits_of(packed, tokens, policy.with(execution)), expected) <
              1e-5);
      }
    }
  }
}

TEST_CASE("pack_weights: a cache changes only rounding", "[model][packed]") {
  const auto tokens = make_tokens(2, 13);
  for (const auto& config : configs()) {
    auto model = make_model(config);
    auto packed = make_packed(config, PackedFormat::kFloat32);
    // Without threshold_top_k, which depends on the tokens of a pass.
    for (size_t i = 0; i + 1 < kPolicies.size(); ++i) {
      const auto expected = logits_of(model, tokens, kPolicies[i]);
      for (const int64_t prompt : {1, 6}) {
        INFO(kPolicies[i].to_string() << ", prompt of " << prompt);
        CHECK(relative_difference(decode(packed, tokens, prompt, kPolicies[i]), expected) < 1e-5);
        CHECK(relative_difference(decode(model, tokens, prompt, kPolicies[i]), expected) < 1e-5);
      }
    }
  }
}

TEST_CASE("pack_weights: narrow formats stay near float32", "[model][packed]") {
  const auto tokens = make_tokens(2, 9);
  for (const auto& config : configs()) {
    auto model = make_model(config);
    const auto expected = logits_of(model, tokens, RoutingPolicy::all());
    const auto scale = expected.std().item<double>();
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      auto bfloat16 = make_packed(config, PackedFormat::kBfloat16);
      auto int8 = make_packed(config, PackedFormat::kInt8);
      const auto deviation = [&](Transformer& packed) {
        return (logits_of(packed, tokens, RoutingPolicy::all(), dtype) - expected)
                   .std()
                   .item<double>() /
               scale;
      };
      CHECK(deviation(bfloat16) < 2e-2);
      CHECK(deviation(int8) < 4e-2);
    }
  }
}

TEST_CASE("pack_weights: a sequence's bits depend on neither the batch nor the threads",
          "[model][packed]") {
  const int threads = kernel_threads().n_threads();
  const auto tokens = make_tokens(9, 15);
  for (const auto& config : configs()) {
    for (const auto format : kFormats) {
      auto packed = make_packed(config, format);
      const auto dtype = format == PackedFormat::kFloat32 ? at::kFloat : at::kBFloat16;
      for (size_t i = 0; i + 1 < kPolicies.size(); ++i) {
        INFO(kPolicies[i].to_string() << ", format " << static_cast<int>(format));
        set_kernel_threads(1);
        const auto whole = decode(packed, tokens, 12, kPolicies[i], dtype);
        for (const int64_t b : {0, 8}) {
          const auto own = tokens.narrow(0, b, 1);
          CHECK(at::equal(decode(packed, own, 12, kPolicies[i], dtype)[0], whole[b]));
        }
        set_kernel_threads(2);
        CHECK(at::equal(decode(packed, tokens, 12, kPolicies[i], dtype), whole));
      }
    }
  }
  set_kernel_threads(threads);
}

TEST_CASE("pack_weights: padding behind a prompt changes no bit of it", "[model][packed]") {
  const auto tokens = make_tokens(1, 30);
  for (const auto& config : configs()) {
    auto packed = make_packed(config, PackedFormat::kBfloat16);
    for (const auto& policy : {RoutingPolicy::all(), RoutingPolicy::top_k(1)}) {
      const auto prompt = decode(packed, tokens.narrow(1, 0, 7), 7, policy, at::kBFloat16);
      const auto padded = decode(packed, tokens, 30, policy, at::kBFloat16);
      CHECK(at::equal(padded.narrow(1, 0, 7), prompt));
    }
  }
}

TEST_CASE("pack_weights: both executions give the same bits", "[model][packed]") {
  const auto tokens = make_tokens(2, 9);
  auto config = configs()[2];  // dense attention: its path does not depend on the execution
  for (const auto format : kFormats) {
    auto packed = make_packed(config, format);
    for (const auto& policy : kPolicies) {
      CHECK(at::equal(logits_of(packed, tokens, policy.with(Execution::kDense)),
                      logits_of(packed, tokens, policy.with(Execution::kSparse))));
    }
  }
}

TEST_CASE("pack_weights: logits of chosen positions are rows of all", "[model][packed]") {
  const at::NoGradGuard no_grad;
  const auto tokens = make_tokens(3, 8);
  for (const bool is_packed : {false, true}) {
    auto model = make_model(moa_config());
    if (is_packed) pack_weights(model, {.format = PackedFormat::kFloat32});
    const auto all = model->forward(tokens, RoutingPolicy::all()).logits;
    const auto some = model->forward(tokens, RoutingPolicy::all(), {.logits_at = {7, 0, 3}}).logits;
    REQUIRE(some.sizes() == at::IntArrayRef({3, 1, 37}));
    const int64_t positions[] = {7, 0, 3};
    for (int64_t b = 0; b < 3; ++b) CHECK(max_difference(some[b][0], all[b][positions[b]]) < 1e-5);
    CHECK_THROWS_AS(model->forward(tokens, RoutingPolicy::all(), {.logits_at = {1}}), c10::Error);
  }
}

TEST_CASE("pack_weights: originals are freed or give gradients", "[model][packed]") {
  const auto tokens = make_tokens(2, 5);
  for (const auto& config : configs()) {
    auto packed = make_packed(config, PackedFormat::kBfloat16);
    CHECK_THROWS_WITH(packed->forward(tokens, RoutingPolicy::all()),
                      Catch::Contains("pack_weights freed it"));
    int64_t kept = 0;
    for (const auto& item : packed->named_parameters()) {
      const bool is_matrix = item.value().dim() == 2;
      if (is_matrix && item.key().find("router") == std::string::npos &&
          item.key().find("embedding") == std::string::npos) {
        kept += item.value().numel();
      }
    }
    CHECK(kept == 0);

    auto model = make_model(config);
    auto both = make_model(config);
    pack_weights(both, {.format = PackedFormat::kInt8, .keep_original = true});
    for (auto& one : {model, both}) {
      one.ptr()->forward(tokens, RoutingPolicy::all()).logits.pow(2).sum().backward();
    }
    CHECK(max_gradient_difference(*both, *model) == 0.0);
  }
}

}  // namespace dsmoe
