#include "model/attention/causal_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "common/error.h"
#include "csrc_kernels/random_tensors.h"
#include "model/module_testing.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

constexpr double kEps = 1e-3;
constexpr int64_t kWidth = 10;
constexpr int64_t kHeadDim = 4;

AttentionConfig qk_norm_config() {
  AttentionConfig config;
  config.kind = AttentionKind::kDense;
  config.head_dim = kHeadDim;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.qk_norm = true;
  return config;
}

// x / sqrt(mean(x^2) + eps) * weight over the last dimension
at::Tensor rms(const at::Tensor& x, const at::Tensor& weight) {
  return x / (at::pow(x, 2).mean({-1}, true) + kEps).sqrt() * weight;
}

// Rotates the pairs (i, i + d/2) of one head at position p by p * theta^(-2i/d).
at::Tensor rotate(const at::Tensor& x, int64_t position, double theta) {
  auto y = x.clone();
  for (int64_t i = 0; i < kHeadDim / 2; ++i) {
    const double angle =
        static_cast<double>(position) * std::pow(theta, -2.0 * static_cast<double>(i) / kHeadDim);
    const auto a = x[i], b = x[i + kHeadDim / 2];
    y[i] = a * std::cos(angle) - b * std::sin(angle);
    y[i + kHeadDim / 2] = b * std::cos(angle) + a * std::sin(angle);
  }
  return y;
}

// One sequence, one token and one head at a time. x [seq, d_model]
at::Tensor by_hand(const torch::nn::Module& m, const at::Tensor& x, double theta) {
  const auto weight = [&](const char* name) { return parameter(m, name); };
  const auto q = rms(at::matmul(x, weight("q_proj.weight").t()), weight("q_norm.weight"));
  const auto k = rms(at::matmul(x, weight("k_proj.weight").t()), weight("k_norm.weight"));
  const auto v = at::matmul(x, weight("v_proj.weight").t());
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < x.size(0); ++t) {
    std::vector<at::Tensor> heads;
    for (int64_t h = 0; h < 4; ++h) {
      const auto query = rotate(q[t].narrow(0, h * kHeadDim, kHeadDim), t, theta);
      std::vector<at::Tensor> scores, values;
      for (int64_t s = 0; s <= t; ++s) {
        const auto key = rotate(k[s].narrow(0, h / 2 * kHeadDim, kHeadDim), s, theta);
        scores.push_back((query * key).sum() / std::sqrt(static_cast<double>(kHeadDim)));
        values.push_back(v[s].narrow(0, h / 2 * kHeadDim, kHeadDim));
      }
      heads.push_back(at::matmul(at::softmax(at::stack(scores), 0), at::stack(values)));
    }
    rows.push_back(at::cat(heads));
  }
  return at::matmul(at::stack(rows), weight("o_proj.weight").t());
}

}  // namespace

TEST_CASE("CausalAttention: qk_norm normalises all heads as one vector before rotation",
          "[model][attention]") {
  CausalAttention attention(kWidth, qk_norm_config(), Biases::kNone, kEps);
  attention->to(at::kDouble);
  randomise(*attention, 3, 0.5);
  RandomTensors random(4);
  const auto x = random.normal({2, 5, kWidth}).to(at::kDouble);
  AttentionContext context;
  context.positions = at::arange(5, at::kLong).expand({2, 5});
  context.rotary =
      rotary_tables(context.positions, rotary_frequencies(kHeadDim, 100.0), at::kDouble);
  const auto y = attention(x, context, 0);
  for (int64_t b = 0; b < 2; ++b) {
    CHECK((y[b] - by_hand(*attention, x[b], 100.0)).abs().max().item<double>() < 1e-12);
  }
}

TEST_CASE("Transformer: with qk_norm decoding in steps equals the whole pass",
          "[model][attention]") {
  auto config = make_tiny_model()->config();
  config.attention = qk_norm_config();
  Transformer model(config);
  init_weights(model, 1, 0.4);
  const at::NoGradGuard no_grad;
  const auto tokens = at::arange(12, at::kLong).view({2, 6});
  const auto plan = RoutingPlan(RoutingPolicy::all());
  const auto whole = model->forward(tokens, plan).logits;
  auto cache = model->make_cache(2, 6, at::kFloat);
  for (int64_t t = 0; t < 6; ++t) {
    const auto step = model->forward(tokens.narrow(1, t, 1), plan, {.cache = &cache}).logits;
    cache.advance({1, 1});
    CHECK((step.select(1, 0) - whole.select(1, t)).abs().max().item<double>() < 1e-5);
  }
}

TEST_CASE("choose_attention_path: on the CPU", "[model][attention]") {
  KvCache cache({1, 2, kHeadDim}, 2, 8);
  AttentionContext context;
  const auto path = [&](at::ScalarType dtype = at::kFloat) {
    return choose_attention_path(context, 1, dtype, at::kCPU);
  };
  CHECK(path() == AttentionPath::kPass);
  context.first_keys = at::zeros({2, 1}, at::kLong);
  CHECK(path() == AttentionPath::kAllStored);
  context.first_keys = at::Tensor();
  context.cache = &cache;
  CHECK(path() == AttentionPath::kAllStored);  // gradients
  const at::NoGradGuard no_grad;
  CHECK(path() == AttentionPath::kSegments);
  CHECK(path(at::kBFloat16) == AttentionPath::kAllStored);
  context.first_keys = at::zeros({2, 1}, at::kLong);
  CHECK(path() == AttentionPath::kAllStored);
}

TEST_CASE("ModelConfig: qk_norm with attention experts is refused", "[model][attention]") {
  auto config = make_tiny_model()->config();
  config.attention.qk_norm = true;
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("model.attention.qk_norm"));
}

}  // namespace dsmoe
