#include "model/parameter_count.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>

#include "model/expert_usage.h"
#include "model/named_tensors.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

// d_model 12, 2 layers. Attention: Q and O of 3 experts of 2 heads of 4, K and V of 2 heads of 4.
constexpr int64_t kAttentionExpert = 2 * 12 * 8;
constexpr int64_t kAttention = 3 * kAttentionExpert + 2 * 12 * 8;
constexpr int64_t kAttentionRouter = 2 * 12 * 5 + 5 * 3;  // SwiGLU of width 5
constexpr int64_t kFfnExpert = 2 * 12 * 3;
constexpr int64_t kFfn = 5 * kFfnExpert;
constexpr int64_t kFfnRouter = 2 * 12 * 5 + 5 * 5;
constexpr int64_t kNorms = 2 * 12;
constexpr int64_t kLayer = kAttention + kAttentionRouter + kFfn + kFfnRouter + kNorms;

// The same groups, counted over the tensors of a built model.
ParameterCount count_built(const ModelConfig& config) {
  ParameterCount count;
  const Transformer model(config);
  for (const auto& [name, tensor] : named_parameters(*model)) {
    const auto has = [&name = name](const char* part) {
      return name.find(part) != std::string::npos;
    };
    auto& group = has("embedding") || name.rfind("head.", 0) == 0 ? count.embeddings
                  : has("router")                                 ? count.routers
                  : has("norm")                                   ? count.norms
                  : has("bias")                                   ? count.biases
                                                                  : count.matrices;
    group += tensor.numel();
  }
  return count;
}

}  // namespace

TEST_CASE("count_parameters: the tiny model, worked by hand", "[model][parameters]") {
  const auto count = count_parameters(make_tiny_model()->config());
  CHECK(count.embeddings == 257 * 12);
  CHECK(count.matrices == 2 * (kAttention + kFfn));
  CHECK(count.routers == 2 * (kAttentionRouter + kFfnRouter));
  CHECK(count.norms == 2 * kNorms + 12);
  CHECK(count.biases == 0);
  CHECK(count.non_embedding() == 2 * kLayer + 12);
  CHECK(count.total() == 257 * 12 + 2 * kLayer + 12);
}

TEST_CASE("count_parameters: equals the allocated parameters for every kind of model",
          "[model][parameters]") {
  auto config = make_tiny_model()->config();
  config.attention.n_heads = 6;
  config.attention.n_kv_heads = 2;
  config.ffn.d_ffn = 17;
  config.attention.kind = GENERATE(AttentionKind::kDense, AttentionKind::kMoa);
  config.ffn.kind = GENERATE(FfnKind::kDense, FfnKind::kMoe);
  config.ffn.activation = GENERATE(Activation::kSilu, Activation::kSwiglu);
  const auto biases = GENERATE(Biases::kNone, Biases::kOutput, Biases::kAll);
  config.bias = biases == Biases::kAll;
  config.output_bias = biases == Biases::kOutput;
  config.norm = GENERATE(NormKind::kLayerNorm, NormKind::kRmsNorm);
  config.positions = GENERATE(PositionKind::kRotary, PositionKind::kLearned);
  config.tie_embeddings = GENERATE(true, false);
  config.ffn.router.kind = kRouterKinds[GENERATE(range<size_t>(0, kRouterKinds.size()))].kind;
  config.attention.router.kind = config.ffn.router.kind;
  config.attention.qk_norm = config.attention.kind == AttentionKind::kDense && config.bias;
  const auto count = count_parameters(config);
  const auto built = count_built(config);
  CHECK(count.embeddings == built.embeddings);
  CHECK(count.matrices == built.matrices);
  CHECK(count.routers == built.routers);
  CHECK(count.norms == built.norms);
  CHECK(count.biases == built.biases);
}

TEST_CASE("active_parameters: counts everything except unselected experts", "[model][parameters]") {
  const auto config = make_tiny_model()->config();
  const auto all = static_cast<double>(2 * kLayer + 12);
  CHECK(active_parameters(config, all_experts(config)) == all);
  // Layer 0 uses 2 FFN and 1 attention experts, layer 1 half a FFN expert more and all attention.
  const ActiveExperts active{.moe = {2, 2.5}, .moa = {1, 3}};
  CHECK(active_parameters(config, active) == all - 5.5 * kFfnExpert - 2 * kAttentionExpert);
}

TEST_CASE("active_parameters: SwiGLU experts have three matrices and their own biases",
          "[model][parameters]") {
  auto config = make_tiny_model()->config();
  config.bias = true;
  config.ffn.activation = Activation::kSwiglu;
  const auto all = static_cast<double>(count_parameters(config).non_embedding());
  auto active = all_experts(config);
  active.moe[0] -= 1;
  CHECK(all - active_parameters(config, active) ==
        3 * 12 * 3 + 2 * 3);  // the output bias is shared
  active = all_experts(config);
  active.moa[1] -= 1;
  CHECK(all - active_parameters(config, active) == kAttentionExpert + 8);
}

TEST_CASE("active_parameters: only the layers that were cut leave experts out",
          "[model][parameters]") {
  auto config = make_tiny_model()->config();
  config.ffn.kind = FfnKind::kPartitioned;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.d_ffn = 15;
  config.ffn.router.kind = RouterKind::kLinear;
  config.ffn.partition.layers = "1";
  const auto count = count_parameters(config);
  int64_t allocated = 0;
  for (const auto& parameter : Transformer(config)->parameters()) allocated += parameter.numel();
  CHECK(count.total() == allocated);
  constexpr int64_t kSwigluFfn = 3 * 12 * 15;
  constexpr int64_t kLinearRouter = 12 * 5;
  CHECK(count.non_embedding() ==
        2 * (kAttention + kAttentionRouter + kSwigluFfn + kNorms) + kLinearRouter + 12);
  auto active = all_experts(config);
  CHECK(active.moe == std::vector<double>{5});
  active.moe[0] = 1.5;
  CHECK(active_parameters(config, active) ==
        static_cast<double>(count.non_embedding()) - 3.5 * 3 * 12 * 3);
}

TEST_CASE("active_parameters: the LLaMAs of arXiv:2502.12455 cut into 8 have its numbers",
          "[model][parameters]") {
  struct Published {
    int64_t vocab_size, d_model, n_layers, n_heads, n_kv_heads, head_dim, d_ffn;
    bool tied;
    int64_t total, ffn;
    double floor;  // share of the parameters that every token uses
  };
  const Published llama_7b{
      32000, 4096, 32, 32, 32, 128, 11008, false, 6738415616, 4328521728, 0.358};
  const Published llama_1b{128256, 2048, 16, 32, 8, 64, 8192, true, 1235814400, 805306368, 0.348};
  // Table 4, thresholds 0.2 to 0.8: percent of the parameters active, and the experts of it.
  const std::vector<double> percent[] = {{65.45, 62.70, 60.43, 58.46, 56.54, 54.77, 52.54},
                                         {64.19, 62.32, 60.79, 59.35, 57.87, 56.34, 54.37}};
  const std::vector<double> experts[] = {{3.70, 3.35, 3.07, 2.83, 2.59, 2.37, 2.09},
                                         {3.60, 3.37, 3.19, 3.01, 2.83, 2.64, 2.40}};
  for (const auto& model : {llama_7b, llama_1b}) {
    ModelConfig config;
    config.vocab_size = model.vocab_size;
    config.d_model = model.d_model;
    config.n_layers = model.n_layers;
    config.tie_embeddings = model.tied;
    config.attention.kind = AttentionKind::kDense;
    config.attention.n_heads = model.n_heads;
    config.attention.n_kv_heads = model.n_kv_heads;
    config.attention.head_dim = model.head_dim;
    config.ffn.kind = FfnKind::kDense;
    config.ffn.activation = Activation::kSwiglu;
    config.ffn.d_ffn = model.d_ffn;
    CHECK(count_parameters(config).total() == model.total);
    config.ffn.kind = FfnKind::kPartitioned;
    config.ffn.n_experts = 8;
    config.ffn.d_expert = model.d_ffn / 8;
    config.ffn.router.kind = RouterKind::kLinear;
    const auto count = count_parameters(config);
    CHECK(count.routers == 8 * model.d_model * model.n_layers);
    CHECK(count.total() == model.total + count.routers);
    auto active = all_experts(config);
    const auto with_experts = [&](double used) {
      for (auto& layer : active.moe) layer = used;
      return active_parameters(config, active) + static_cast<double>(count.embeddings) -
             static_cast<double>(count.routers);
    };
    CHECK(with_experts(0.0) == static_cast<double>(model.total - model.ffn));
    const auto total = static_cast<double>(model.total);
    CHECK(with_experts(0.0) / total == Approx(model.floor).margin(5e-4));
    const size_t row = model.tied ? 1 : 0;
    for (size_t i = 0; i < percent[row].size(); ++i) {
      CHECK(100.0 * with_experts(experts[row][i]) / total == Approx(percent[row][i]).margin(0.1));
    }
  }
}

TEST_CASE("ExpertUsage: counts the selected experts of the tokens that count",
          "[model][parameters]") {
  ModelOutput output;
  output.features = at::zeros({1, 3, 2});
  const auto selected = [](std::initializer_list<int> values) {
    return at::tensor(std::vector<int64_t>(values.begin(), values.end()))
        .to(at::kBool)
        .view({1, 3, 2});
  };
  const auto probs = at::tensor(std::vector<double>{0.9, 0.1, 0.6, 0.7, 0.2, 0.8}).view({1, 3, 2});
  output.moe = {{{}, probs, selected({1, 0, 1, 1, 0, 1})}, {{}, {}, selected({1, 0, 1, 0, 0, 0})}};
  ExpertUsage usage;
  usage.add(output);
  CHECK(usage.n_tokens() == 3);
  CHECK(usage.moe()[0].tokens_per_expert == std::vector<int64_t>{2, 2});
  CHECK(usage.moe()[1].tokens_per_expert == std::vector<int64_t>{2, 0});
  CHECK(usage.moe()[0].tokens_without_expert == 0);
  CHECK(usage.moe()[1].tokens_without_expert == 1);
  CHECK(usage.moe()[0].mean_selected_prob() == Approx((0.9 + 0.6 + 0.7 + 0.8) / 4));
  CHECK(usage.moe()[1].mean_selected_prob() == 0.0);
  CHECK(usage.active_experts().moe == std::vector<double>{4. / 3, 2. / 3});
  CHECK(usage.active_experts().moa.empty());

  usage.add(output, at::tensor(std::vector<int64_t>{0, 1, 0}).to(at::kBool).view({1, 3}));
  CHECK(usage.n_tokens() == 4);
  CHECK(usage.moe()[0].tokens_per_expert == std::vector<int64_t>{3, 3});
  CHECK(usage.moe()[1].tokens_without_expert == 1);
  CHECK(usage.moe()[0].selected_probs == Approx(0.9 + 0.6 + 0.7 + 0.8 + 0.6 + 0.7));
  CHECK(mean_over_layers({1, 2, 6}) == 3.0);
  CHECK(mean_over_layers({}) == 0.0);
}

}  // namespace dsmoe
