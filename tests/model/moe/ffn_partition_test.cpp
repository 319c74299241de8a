#include "model/moe/ffn_partition.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>

#include "common/error.h"
#include "csrc_kernels/random_tensors.h"
#include "model/io/export_model.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

ModelSource dense_source() {
  ModelConfig config;
  config.vocab_size = 13;
  config.d_model = 8;
  config.n_layers = 3;
  config.max_seq_len = 16;
  config.attention.kind = AttentionKind::kDense;
  config.attention.head_dim = 4;
  config.attention.n_heads = 4;
  config.attention.n_kv_heads = 2;
  config.ffn.kind = FfnKind::kDense;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.d_ffn = 12;
  config.tie_embeddings = false;
  ModelSource source{.config = config, .tensors = {}};
  RandomTensors random(1);
  for (const auto& tensor : llama_tensors(config)) {
    const auto value = (random.normal(tensor.shape) * 0.5).to(at::kFloat);
    source.tensors.push_back({tensor.name, tensor.shape, [value] { return value; }});
  }
  return source;
}

std::map<std::string, at::Tensor> load_all(const ModelSource& source) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& tensor : source.tensors) tensors[tensor.name] = tensor.load();
  return tensors;
}

at::Tensor logits_of(const ModelSource& source, const RoutingPlan& plan, bool force_gates) {
  const at::NoGradGuard no_grad;
  auto model = instantiate(source);
  model->to(at::kDouble);
  model->force_gates(force_gates);
  return model(at::arange(10, at::kLong).unsqueeze(0), plan).logits;
}

}  // namespace

TEST_CASE("partition_ffn: with gates at 1 the cut model equals the dense one for every order",
          "[model][partition]") {
  const auto dense = dense_source();
  const auto expected = logits_of(dense, RoutingPolicy::all(), false);
  for (const auto method : {PartitionMethod::kContiguous, PartitionMethod::kRandom}) {
    for (const auto* layers : {"all", "1", "0,2"}) {
      const PartitionOptions options{.n_experts = 4, .method = method, .seed = 3, .layers = layers};
      const auto cut = partition_ffn(dense, options);
      CHECK(cut.config.training_policy == "threshold=0.5");
      CHECK(cut.config.ffn.d_expert == 3);
      const auto plan = parse_routing_plan("threshold=0.5");
      CHECK(max_difference(logits_of(cut, plan, true), expected) < 1e-12);
      CHECK(max_difference(logits_of(cut, plan, false), expected) > 1e-3);
    }
  }
}

TEST_CASE("partition_ffn: a contiguous cut moves no byte and adds routers only",
          "[model][partition]") {
  const auto dense = dense_source();
  const auto before = load_all(dense);
  const auto after = load_all(partition_ffn(dense, {.n_experts = 3}));
  int64_t n_router_weights = 0;
  int64_t n_weights = 0;
  for (const auto& [name, tensor] : after) {
    n_weights += tensor.numel();
    if (name.find(".router.") != std::string::npos) {
      n_router_weights += tensor.numel();
      CHECK(tensor.abs().max().item<double>() > 0.0);
      CHECK(tensor.std().item<double>() == Approx(0.02).margin(0.01));
      continue;
    }
    auto old_name = name;
    if (const auto at = name.find("moe.experts."); at != std::string::npos) {
      old_name = name.substr(0, at) + "ffn." + name.substr(at + 12);
    }
    CHECK(at::equal(tensor, before.at(old_name)));
  }
  CHECK(n_router_weights == 3 * 3 * 8);
  int64_t n_dense_weights = 0;
  for (const auto& [name, tensor] : before) n_dense_weights += tensor.numel();
  CHECK(n_weights - n_router_weights == n_dense_weights);
}

TEST_CASE("partition_ffn: router_std sets the spread of the logits", "[model][partition]") {
  auto dense = dense_source();
  dense.config.d_model = 2048;
  dense.tensors.clear();
  for (const double std : {0.02, 0.3}) {
    const auto cut = partition_ffn(dense, {.n_experts = 12, .router_std = std});
    const auto router = cut.tensors.at(0).load();
    CHECK(router.sizes() == at::IntArrayRef({12, 2048}));
    CHECK(router.std().item<double>() == Approx(std).epsilon(0.02));
    CHECK(std::abs(router.mean().item<double>()) < 0.02 * std);
    // The paper's width with N(0, 0.02) and an input of root mean square 1: 0.9.
    const auto x = RandomTensors(3).normal({500, 2048}, at::kFloat);
    const auto logits = x.matmul(router.t());
    CHECK(logits.std().item<double>() == Approx(std * std::sqrt(2048.0)).epsilon(0.05));
  }
}

TEST_CASE("partition_ffn: the three matrices share one random order, set by the seed",
          "[model][partition]") {
  const auto dense = dense_source();
  const auto before = load_all(dense);
  const auto cut = [&](uint64_t seed) {
    return load_all(
        partition_ffn(dense, {.n_experts = 2, .method = PartitionMethod::kRandom, .seed = seed}));
  };
  const auto a = cut(5);
  const auto b = cut(5);
  const auto c = cut(6);
  const std::string up = "blocks_0.moe.experts.up_proj.weight";
  const std::string router = "blocks_0.moe.router.out_proj.weight";
  CHECK(at::equal(a.at(up), b.at(up)));
  CHECK_FALSE(at::equal(a.at(up), c.at(up)));
  CHECK_FALSE(at::equal(a.at(up), before.at("blocks_0.ffn.up_proj.weight")));
  CHECK(at::equal(a.at(router), b.at(router)));
  CHECK_FALSE(at::equal(a.at(router), c.at(router)));
  CHECK_FALSE(at::equal(a.at(router), a.at("blocks_1.moe.router.out_proj.weight")));
  // Where each row went, layer by layer.
  const auto order_of = [&](int64_t layer) {
    const auto block = "blocks_" + std::to_string(layer);
    const auto rows = a.at(block + ".moe.experts.up_proj.weight").unsqueeze(1);
    return rows.eq(before.at(block + ".ffn.up_proj.weight")).all(-1).to(at::kLong).argmax(1);
  };
  CHECK_FALSE(at::equal(order_of(0), order_of(1)));
}

TEST_CASE("partition_ffn: converting and exporting again gives the dense weights byte for byte",
          "[model][partition]") {
  const TemporaryDirectory directory;
  const auto dense = dense_source();
  const auto cut = partition_ffn(dense, {.n_experts = 4, .layers = "0-1"});
  const ExportRequest request{.plan = RoutingPolicy::threshold(0.5)};
  const auto of_dense =
      export_model(posix_io(), instantiate(dense), "hf-llama", {}, directory.file("dense"));
  const auto of_cut =
      export_model(posix_io(), instantiate(cut), "hf-llama", request, directory.file("again"));
  CHECK_FALSE(of_dense.joined_partition);
  CHECK(of_cut.joined_partition);
  for (const auto* name : {"/model.safetensors", "/config.json"}) {
    CHECK(read_file(posix_io(), directory.file("dense") + name, 1 << 20) ==
          read_file(posix_io(), directory.file("again") + name, 1 << 20));
  }
}

TEST_CASE("partition_ffn: refuses models that cannot be cut", "[model][partition]") {
  const auto dense = dense_source();
  CHECK_THROWS_WITH(partition_ffn(dense, {.n_experts = 8}),
                    Contains("n_experts = 8 does not divide the FFN width 12"));
  CHECK_THROWS_WITH(partition_ffn(partition_ffn(dense, {.n_experts = 2}), {.n_experts = 2}),
                    Contains("dense FFNs"));
  CHECK_THROWS_WITH(partition_ffn(dense, {.n_experts = 2, .layers = "3"}), Contains("3-3"));
}

TEST_CASE("parse_partition_options: reads every key and refuses unknown ones",
          "[model][partition]") {
  const auto options = parse_partition_options("n_experts=16,method=random,seed=9,layers=0-3+7");
  CHECK(options.n_experts == 16);
  CHECK(options.method == PartitionMethod::kRandom);
  CHECK(options.seed == 9);
  CHECK(options.layers == "0-3,7");
  CHECK(parse_partition_options("n_experts=4").method == PartitionMethod::kContiguous);
  CHECK(parse_partition_options("n_experts=4").router_std == 0.02);
  CHECK(parse_partition_options("n_experts=4,router_std=8e-2").router_std == 0.08);
  CHECK_THROWS_WITH(parse_partition_options("router_std=0"), Contains("zeros would open no gate"));
  for (const auto* text : {"",
                           "n_experts",
                           "n_experts=",
                           "n_experts=0",
                           "n_experts=-1",
                           "n=3",
                           "method=kmeans",
                           "seed=x",
                           "router_std=",
                           "router_std=-0.1",
                           "router_std=nan",
                           "router_std=101",
                           "router_std=1x",
                           "n_experts=4,"}) {
    INFO(text);
    CHECK_THROWS_AS(parse_partition_options(text), Error);
  }
}

}  // namespace dsmoe
