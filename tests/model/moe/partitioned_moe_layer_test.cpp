#include "model/moe/partitioned_moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "model/loss/expert_sparsity.h"
#include "model/module_testing.h"
#include "model/packed_weights.h"

namespace dsmoe {
namespace {

constexpr int64_t kModel = 9;
constexpr int64_t kExperts = 4;
constexpr int64_t kWidth = 3;
const auto kPaper = RoutingPolicy::threshold(0.5);
const auto kDense = kPaper.with(Execution::kDense);
const auto kSparse = kPaper.with(Execution::kSparse);

FfnConfig ffn_config() {
  FfnConfig config;
  config.kind = FfnKind::kPartitioned;
  config.activation = Activation::kSwiglu;
  config.n_experts = kExperts;
  config.d_expert = kWidth;
  config.d_ffn = kExperts * kWidth;
  config.router.kind = RouterKind::kLinear;
  return config;
}

/// The router reads logit i from coordinate i of x, so that a test can choose the gates.
PartitionedMoELayer readable_layer(const FfnConfig& config, uint64_t seed) {
  PartitionedMoELayer layer(kModel, config, Biases::kNone);
  randomise(*layer, seed, 0.6);
  layer->to(at::kDouble);
  const at::NoGradGuard no_grad;
  auto router = layer->named_parameters()["router.out_proj.weight"];
  router.zero_();
  for (int64_t i = 0; i < kExperts; ++i) router[i][i] = 1.0;
  return layer;
}

/// Tokens that open 0, 1, 2, 3 and all gates, and gates that are 0.5 exactly or miss it narrowly.
at::Tensor chosen_tokens(uint64_t seed) {
  const auto logits =
      at::tensor(std::vector<double>{-1.0, -0.5, -2.0, -0.1, -1.0, 0.7,   -0.3, -2.0,
                                     1.5,  -0.2, 0.4,  -1.1, 2.0,  0.3,   0.1,  -0.7,
                                     0.9,  0.2,  1.3,  0.6,  0.0,  0.0,   0.8,  -0.4,
                                     0.0,  0.0,  0.0,  0.0,  1e-8, -1e-8, 1e-6, -1e-6})
          .view({8, kExperts});
  const auto rest = RandomTensors(seed).normal({8, kModel - kExperts});
  return at::cat({logits, rest}, 1).unsqueeze(0);  // [1, 8, d_model]
}
const std::vector<int64_t> kOpen = {0, 1, 2, 3, 4, 1, 0, 2};

/// Output of expert i from its own rows and columns. x [n_tokens, d_model].
at::Tensor part_output(const PartitionedMoELayer& layer, const at::Tensor& x, int64_t i) {
  const auto named = layer->named_parameters();
  const auto rows = [&](const char* name) { return named[name].narrow(0, i * kWidth, kWidth); };
  const auto gate = x.matmul(rows("experts.gate_proj.weight").t());
  const auto hidden = gate * at::sigmoid(gate) * x.matmul(rows("experts.up_proj.weight").t());
  const auto down = named["experts.down_proj.weight"].narrow(1, i * kWidth, kWidth);
  return hidden.matmul(down.t());
}

/// sum_i weights_i o_i. x [n_tokens, d_model], weights [n_tokens, n_experts].
at::Tensor part_loop(const PartitionedMoELayer& layer,
                     const at::Tensor& x,
                     const at::Tensor& weights) {
  auto y = at::zeros(x.sizes(), x.options());
  for (int64_t i = 0; i < kExperts; ++i) {
    y = y + weights.narrow(1, i, 1) * part_output(layer, x, i);
  }
  return y;
}

at::Tensor gates_of(const PartitionedMoELayer& layer, const at::Tensor& x) {
  return at::sigmoid(x.matmul(layer->named_parameters()["router.out_proj.weight"].t()));
}

bool all_finite(const at::Tensor& x) { return at::isfinite(x).all().item<bool>(); }

}  // namespace

TEST_CASE("PartitionedMoELayer: gates forced to 1 give the dense FFN it was cut from",
          "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 1);
  ExpertFfn dense(kModel, 1, kExperts * kWidth, Activation::kSwiglu, Biases::kNone);
  dense->to(at::kDouble);
  {
    const at::NoGradGuard no_grad;
    const auto from = layer->named_parameters();
    for (auto& item : dense->named_parameters()) {
      item.value().copy_(from["experts." + item.key()]);
    }
  }
  const auto x = RandomTensors(2).normal({2, 5, kModel});
  const at::NoGradGuard no_grad;
  const auto expected = dense(x.flatten(0, 1)).view(x.sizes());
  CHECK(max_difference(layer(x, kDense).y, expected) > 0.1);
  layer->gates_forced_to_one = true;
  for (const auto& policy : {kDense, kSparse, RoutingPolicy::all(), RoutingPolicy::top_k(1)}) {
    CHECK(max_difference(layer(x, policy).y, expected) < 1e-12);
  }
}

TEST_CASE("PartitionedMoELayer: dense, sparse and the expert loop agree for every number of gates",
          "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 3);
  const auto x = chosen_tokens(4);
  const auto gates = gates_of(layer, x[0]);
  const auto open = gates.gt(0.5);
  const auto n_open = open.sum(1);
  for (size_t t = 0; t < kOpen.size(); ++t) {
    CHECK(n_open[static_cast<int64_t>(t)].item<int64_t>() == kOpen[t]);
  }
  const auto scale = kExperts / n_open.clamp_min(1).to(at::kDouble).unsqueeze(1);
  const auto expected = part_loop(layer, x[0], gates * open * scale);
  const at::NoGradGuard no_grad;
  for (const auto& policy : {kDense, kSparse}) {
    const auto output = layer(x, policy);
    CHECK(max_difference(output.y[0], expected) < 1e-12);
    CHECK(at::equal(output.routing.selected[0], open));
    CHECK(output.y[0][0].abs().max().item<double>() == 0.0);  // no gate: residual only
    CHECK(output.y[0][6].abs().max().item<double>() == 0.0);  // gates of 0.5 are closed
  }
}

TEST_CASE("PartitionedMoELayer: both executions have the same gates in float32", "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 3);
  layer->to(at::kFloat);
  const auto x = chosen_tokens(4).to(at::kFloat);
  const at::NoGradGuard no_grad;
  const auto dense = layer(x, kDense);
  const auto sparse = layer(x, kSparse);
  CHECK(at::equal(dense.routing.selected, sparse.routing.selected));
  CHECK(max_difference(dense.y, sparse.y) < 1e-5);
}

TEST_CASE("PartitionedMoELayer: packed weights have the same gates, also near the threshold",
          "[model][moe]") {
  // Logits around 0 and around that of the threshold 0.3, down to less than a float of 0.5 shows.
  std::vector<double> logits;
  for (const double step : {0.0, 1e-9, 3e-8, 6e-8, 1e-7, 1.3e-7, 2e-7, 4e-7, 1e-6, 1e-3}) {
    for (const double centre : {0.0, std::log(0.3 / 0.7)}) {
      logits.insert(logits.end(), {centre + step, centre - step});
    }
  }
  const auto n_tokens = static_cast<int64_t>(logits.size()) / kExperts;
  const auto narrow = at::cat({at::tensor(logits).view({n_tokens, kExperts}),
                               RandomTensors(40).normal({n_tokens, kModel - kExperts})},
                              1);
  const auto x = at::cat({chosen_tokens(41)[0], narrow}).unsqueeze(0).to(at::kFloat).contiguous();
  for (const auto rule : {ZeroActive::kZero, ZeroActive::kArgmax, ZeroActive::kAll}) {
    auto config = ffn_config();
    config.partition.zero_active = rule;
    auto layer = readable_layer(config, 42);
    layer->to(at::kFloat);
    auto packed = readable_layer(config, 42);
    packed->to(at::kFloat);
    packed->router->pack({.format = PackedFormat::kFloat32});
    packed->experts->pack({.format = PackedFormat::kFloat32});
    // Of equal gates none is the strongest, so that rule gets tokens without.
    const auto tokens = rule == ZeroActive::kArgmax ? x.narrow(1, 0, 6) : x;
    const at::NoGradGuard no_grad;
    for (const double threshold : {0.0, 0.3, 0.5, 1.0}) {
      for (const auto execution : {Execution::kDense, Execution::kSparse}) {
        INFO("threshold " << threshold << ", rule " << static_cast<int>(rule));
        const auto policy = RoutingPolicy::threshold(threshold).with(execution);
        const auto expected = layer(tokens, policy);
        const auto output = packed(tokens, policy);
        CHECK(at::equal(output.routing.selected, expected.routing.selected));
        CHECK(max_difference(output.y, expected.y) < 1e-5);
      }
    }
  }
}

TEST_CASE("PartitionedMoELayer: all experts without threshold are weighted by their gates",
          "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 5);
  const auto x = chosen_tokens(6);
  const at::NoGradGuard no_grad;
  const auto expected = part_loop(layer, x[0], gates_of(layer, x[0]));
  CHECK(max_difference(layer(x, RoutingPolicy::all()).y[0], expected) < 1e-12);
}

TEST_CASE("PartitionedMoELayer: a cap keeps the strongest gates and scales by those executed",
          "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 7);
  const auto x = chosen_tokens(8);
  const auto gates = gates_of(layer, x[0]);
  const at::NoGradGuard no_grad;
  const auto y = layer(x, RoutingPolicy::threshold(0.5, 2).with(Execution::kSparse)).y[0];
  // Token 4 opens all gates with logits 0.9, 0.2, 1.3, 0.6: experts 2 and 0 stay.
  const auto weights = at::zeros({1, kExperts}, at::kDouble);
  weights[0][0] = gates[4][0] * 2.0;
  weights[0][2] = gates[4][2] * 2.0;
  CHECK(max_difference(y.narrow(0, 4, 1), part_loop(layer, x[0].narrow(0, 4, 1), weights)) < 1e-12);
}

TEST_CASE("PartitionedMoELayer: LLaMA-MoE's gates are a softmax over the k strongest, times n / k",
          "[model][moe]") {
  auto config = ffn_config();
  config.partition.gates = RouterActivation::kSoftmax;
  config.partition.straight_through = false;
  auto layer = readable_layer(config, 33);
  const auto x = chosen_tokens(34);
  // Token 4 has logits 0.9, 0.2, 1.3, 0.6: experts 2 and 0 share exp(1.3) : exp(0.9).
  const auto weights = at::zeros({1, kExperts}, at::kDouble);
  weights[0][0] = 2.0 * std::exp(0.9) / (std::exp(0.9) + std::exp(1.3));
  weights[0][2] = 2.0 * std::exp(1.3) / (std::exp(0.9) + std::exp(1.3));
  const auto token = x[0].narrow(0, 4, 1);
  for (const auto execution : {Execution::kDense, Execution::kSparse}) {
    const at::NoGradGuard no_grad;
    const auto output = layer(x, RoutingPolicy::top_k(2).with(execution));
    CHECK(max_difference(output.y[0].narrow(0, 4, 1), part_loop(layer, token, weights)) < 1e-12);
    CHECK(max_difference(output.routing.router_probs.sum(-1), at::ones({1, 8}, at::kDouble)) <
          1e-12);
  }
}

TEST_CASE("PartitionedMoELayer: without count scale the gated sum stays as it is", "[model][moe]") {
  auto config = ffn_config();
  config.partition.count_scale = false;
  auto layer = readable_layer(config, 9);
  const auto x = chosen_tokens(10);
  const auto gates = gates_of(layer, x[0]);
  const at::NoGradGuard no_grad;
  const auto expected = part_loop(layer, x[0], gates * gates.gt(0.5));
  CHECK(max_difference(layer(x, kSparse).y[0], expected) < 1e-12);
}

TEST_CASE("PartitionedMoELayer: each zero_active rule selects its experts", "[model][moe]") {
  const auto x = chosen_tokens(12);
  for (const auto rule : {ZeroActive::kZero, ZeroActive::kArgmax, ZeroActive::kAll}) {
    auto config = ffn_config();
    config.partition.zero_active = rule;
    auto layer = readable_layer(config, 11);
    const auto gates = gates_of(layer, x[0]).narrow(0, 0, 1);  // logits -1, -0.5, -2, -0.1
    auto weights = at::zeros({1, kExperts}, at::kDouble);
    if (rule == ZeroActive::kArgmax) weights[0][3] = 4.0 * gates[0][3];
    if (rule == ZeroActive::kAll) weights = gates;
    const auto leaf = leaf_copy(x);
    const auto y = layer(leaf, kDense).y;
    CHECK(max_difference(y[0].narrow(0, 0, 1), part_loop(layer, x[0].narrow(0, 0, 1), weights)) <
          1e-12);
    // Tokens 1 to 5 open a gate, and the rule is none of theirs.
    config.partition.zero_active = ZeroActive::kZero;
    const auto plain = readable_layer(config, 11)(x, kDense).y;
    CHECK(max_difference(y[0].narrow(0, 1, 5), plain[0].narrow(0, 1, 5)) == 0.0);
    y.square().sum().backward();
    CHECK(all_finite(y));
    CHECK(all_finite(leaf.grad()));
    for (const auto& item : layer->named_parameters()) CHECK(all_finite(item.value().grad()));
  }
}

TEST_CASE("PartitionedMoELayer: no gate anywhere and thresholds of 0 and 1 stay finite",
          "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 13);
  const auto x = chosen_tokens(14);
  const at::NoGradGuard no_grad;
  CHECK(layer(x, RoutingPolicy::threshold(0.0)).routing.selected.all().item<bool>());
  for (const auto execution : {Execution::kDense, Execution::kSparse}) {
    const auto none = layer(x, RoutingPolicy::threshold(1.0).with(execution));
    CHECK_FALSE(none.routing.selected.any().item<bool>());
    CHECK(none.y.abs().max().item<double>() == 0.0);
  }
  layer->named_parameters()["router.out_proj.weight"].zero_();
  CHECK(layer(x, kDense).y.abs().max().item<double>() == 0.0);  // 0.5 is not above 0.5
}

TEST_CASE("PartitionedMoELayer: a symmetric router leaves one token in 256 without a gate",
          "[model][moe]") {
  FfnConfig config = ffn_config();
  config.n_experts = 8;
  config.d_expert = 1;
  PartitionedMoELayer layer(256, config, Biases::kNone);
  randomise(*layer, 15, 0.02);
  const at::NoGradGuard no_grad;
  const auto x = RandomTensors(16).normal({1, 20000, 256}, at::kFloat);
  const auto n_open = layer(x, kDense).routing.selected.sum(-1);
  const double none = n_open.eq(0).to(at::kDouble).mean().item<double>();
  CHECK(none > 0.5 / 256);
  CHECK(none < 2.0 / 256);
  CHECK(n_open.to(at::kDouble).mean().item<double>() == Approx(4.0).margin(0.1));
}

TEST_CASE("PartitionedMoELayer: closed experts get no gradient, their gates do", "[model][moe]") {
  for (const bool straight_through : {true, false}) {
    auto config = ffn_config();
    config.partition.straight_through = straight_through;
    auto layer = readable_layer(config, 17);
    // One token with logits 1.5, -0.2, 0.4, -1.1: experts 1 and 3 are closed.
    const auto x = chosen_tokens(18).narrow(1, 2, 1).contiguous();
    const auto upstream = RandomTensors(19).normal(x.sizes());
    layer(x, kDense).y.backward(upstream);
    const auto named = layer->named_parameters();
    const auto router_gradient = named["router.out_proj.weight"].grad();
    for (int64_t i = 0; i < kExperts; ++i) {
      const bool open = i == 0 || i == 2;
      for (const auto* name : {"experts.up_proj.weight", "experts.gate_proj.weight"}) {
        const auto block = named[name].grad().narrow(0, i * kWidth, kWidth);
        CHECK((block.abs().max().item<double>() > 0.0) == open);
      }
      const auto down = named["experts.down_proj.weight"].grad().narrow(1, i * kWidth, kWidth);
      CHECK((down.abs().max().item<double>() > 0.0) == open);
      // s <delta, o_i> g (1 - g) x with s = 4 / 2
      const auto g = gates_of(layer, x[0])[0][i].detach();
      const auto c = (upstream[0] * part_output(layer, x[0], i).detach()).sum();
      const auto expected = 2.0 * c * g * (1.0 - g) * x[0][0];
      if (open || straight_through) {
        CHECK(max_difference(router_gradient[i], expected) < 1e-12);
      } else {
        CHECK(router_gradient[i].abs().max().item<double>() == 0.0);
      }
    }
  }
}

TEST_CASE("PartitionedMoELayer: all gradients equal finite differences of the surrogate",
          "[model][moe]") {
  constexpr double kSparsityWeight = 0.7;
  for (const uint64_t seed : {21, 22, 23}) {
    PartitionedMoELayer layer(kModel, ffn_config(), Biases::kNone);
    randomise(*layer, seed, 0.6);
    layer->to(at::kDouble);
    const auto x = leaf_copy(RandomTensors(seed + 10).normal({1, 6, kModel}));
    const auto upstream = RandomTensors(seed + 20).normal(x.sizes());
    const auto output = layer(x, kDense);
    ((output.y * upstream).sum() +
     kSparsityWeight * expert_sparsity_loss(output.routing.router_probs, output.routing.selected))
        .backward();

    // The open set, its size and the straight-through offset are constants, taken here.
    const at::NoGradGuard no_grad;
    const auto start = gates_of(layer, x[0]).clone();
    const auto open = start.gt(0.5).to(at::kDouble);
    const auto scale = kExperts / open.sum(1, true).clamp_min(1);
    const auto surrogate = [&] {
      const auto gates = gates_of(layer, x[0]);
      const auto y = part_loop(layer, x[0], scale * (start * open + gates - start));
      return ((y * upstream[0]).sum() + kSparsityWeight * (gates * open).mean()).item<double>();
    };
    CHECK(max_difference(x.grad(), numeric_gradient(surrogate, x)) < 1e-8);
    for (const auto& item : layer->named_parameters()) {
      INFO(item.key());
      CHECK(max_difference(item.value().grad(), numeric_gradient(surrogate, item.value())) < 1e-8);
    }
  }
}

TEST_CASE("PartitionedMoELayer: sparse execution cannot train a straight-through estimator",
          "[model][moe]") {
  auto layer = readable_layer(ffn_config(), 31);
  const auto x = chosen_tokens(32);
  CHECK_THROWS_AS(layer(x, kSparse), c10::Error);
  // Left to itself it computes every expert.
  CHECK(max_difference(layer(x, kPaper).y, layer(x, kDense).y) == 0.0);
  auto config = ffn_config();
  config.partition.straight_through = false;
  auto plain = readable_layer(config, 31);
  auto reference = readable_layer(config, 31);
  plain(x, kSparse).y.square().sum().backward();
  reference(x, kDense).y.square().sum().backward();
  CHECK(max_gradient_difference(*plain, *reference) < 1e-11);
}

TEST_CASE("expert_sparsity_loss: the mean of open gates, with a gradient on these only",
          "[model][loss]") {
  const auto probs = at::tensor(std::vector<double>{0.9, 0.2, 0.6, 0.4, 0.5, 0.7})
                         .view({1, 3, 2})
                         .requires_grad_(true);
  const auto selected = probs.detach().gt(0.5);
  const auto loss = expert_sparsity_loss(probs, selected);
  CHECK(loss.item<double>() == Approx((0.9 + 0.6 + 0.7) / 6).epsilon(1e-12));
  loss.backward();
  CHECK(max_difference(probs.grad(), selected.to(at::kDouble) / 6.0) < 1e-15);

  const auto doubled = at::cat({probs, probs}, 0);
  CHECK(expert_sparsity_loss(doubled, doubled.gt(0.5)).item<double>() ==
        Approx(loss.item<double>()).epsilon(1e-12));
  // Padding: the second token does not count, whatever its gates.
  const auto mask = at::tensor(std::vector<int64_t>{1, 0, 1}).to(at::kBool).view({1, 3});
  CHECK(expert_sparsity_loss(probs, selected, mask).item<double>() ==
        Approx((0.9 + 0.7) / 4).epsilon(1e-12));
  CHECK_THROWS_AS(expert_sparsity_loss(probs, selected.narrow(1, 0, 2)), c10::Error);
}

}  // namespace dsmoe
