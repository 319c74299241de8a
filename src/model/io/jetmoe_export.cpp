#include "model/io/jetmoe_export.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "common/error.h"
#include "model/io/hf_directory.h"
#include "model/io/target_rules.h"
#include "model/io/tensor_link.h"

namespace dsmoe {
namespace {

constexpr double kBlockNormEps = 1e-6;  // fixed in the target's block norms

// [n_experts, ...] -> [copies * n_experts, ...], each expert's copies together
at::Tensor repeat_experts(const at::Tensor& experts, int64_t copies) {
  if (copies == 1) return experts;
  auto shape = experts.sizes().vec();
  shape.insert(shape.begin() + 1, copies);
  return experts.unsqueeze(1).expand(shape).flatten(0, 1);
}

// copies: how often each attention expert stands in the file
std::vector<TensorLink> block_links(const Parameters& parameters,
                                    const ModelConfig& config,
                                    int64_t layer,
                                    int64_t copies) {
  const auto of = [&](const char* name) { return parameters.of_block(layer, name); };
  const int64_t n_attention = config.attention.n_experts;
  const int64_t n_ffn = config.ffn.n_experts;
  const auto name = [&](const char* tail) {
    return fmt::format("model.layers.{}.{}", layer, tail);
  };
  const auto bias = at::zeros({config.d_model});
  return {
      {name("input_layernorm.weight"), {of("attention_norm.weight")}},
      {name("self_attention.kv_proj.weight"), {of("moa.k_proj.weight"), of("moa.v_proj.weight")}},
      {name("self_attention.experts.router.layer.weight"),
       {repeat_experts(of("moa.router.out_proj.weight"), copies)}},
      {name("self_attention.experts.input_linear.weight"),
       {repeat_experts(expert_rows(of("moa.q_proj.weight"), n_attention), copies)}},
      {name("self_attention.experts.output_linear.weight"),
       {repeat_experts(expert_columns(of("moa.o_proj.weight"), n_attention), copies)}},
      {.name = name("self_attention.experts.bias"), .parts = {bias}, .is_constant = true},
      {name("post_attention_layernorm.weight"), {of("ffn_norm.weight")}},
      {name("mlp.router.layer.weight"), {of("moe.router.out_proj.weight")}},
      {name("mlp.input_linear.weight"),
       {expert_rows(of("moe.experts.gate_proj.weight"), n_ffn),
        expert_rows(of("moe.experts.up_proj.weight"), n_ffn)},
       /*axis=*/1},
      {name("mlp.output_linear.weight"),
       {expert_columns(of("moe.experts.down_proj.weight"), n_ffn)}},
      {.name = name("mlp.bias"), .parts = {bias}, .is_constant = true}};
}

std::vector<TensorLink> links_of(const Transformer& model, int64_t copies) {
  const Parameters parameters(model);
  const auto& config = model->config();
  std::vector<TensorLink> links{{"model.embed_tokens.weight", {parameters.at("embedding")}},
                                {"model.norm.weight", {parameters.at("final_norm.weight")}}};
  if (!config.tie_embeddings) links.push_back({"lm_head.weight", {parameters.at("head.weight")}});
  for (int64_t i = 0; i < config.n_layers; ++i) {
    for (auto& link : block_links(parameters, config, i, copies)) links.push_back(std::move(link));
  }
  return links;
}

nlohmann::ordered_json config_of(const ModelConfig& config, int64_t top_k, at::ScalarType dtype) {
  const auto& attention = config.attention;
  nlohmann::ordered_json json = {
      {"architectures", {"JetMoeForCausalLM"}},
      {"model_type", "jetmoe"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.d_model},
      {"num_hidden_layers", config.n_layers},
      {"num_key_value_heads", attention.heads_per_expert},
      {"kv_channels", attention.head_dim},
      {"intermediate_size", config.ffn.d_expert},
      {"max_position_embeddings", config.max_seq_len},
      {"activation_function", "silu"},
      {"num_local_experts", config.ffn.n_experts},
      {"num_experts_per_tok", top_k},
      {"tie_word_embeddings", config.tie_embeddings},
      {"rms_norm_eps", config.norm_eps},
      {"rope_theta", config.rope_theta},
      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", config.rope_theta}}},
      {"attention_dropout", 0.0},
      {"torch_dtype", hf_dtype_name(dtype)}};
  // Some releases take the rotary size from hidden_size unless this says otherwise.
  if (attention.head_dim * attention.heads_per_expert * top_k != config.d_model) {
    json["head_dim"] = attention.head_dim;
  }
  return json;
}

}  // namespace

std::vector<std::string> jetmoe_obstacles(const ModelConfig& config, const RoutingPlan& plan) {
  auto obstacles = common_obstacles(config);
  const auto& attention = config.attention;
  const auto& ffn = config.ffn;
  if (attention.kind != AttentionKind::kMoa) {
    obstacles.emplace_back("attention.kind dense: the target has attention experts");
  } else if (attention.router.kind != RouterKind::kLinear) {
    obstacles.emplace_back("moa.router.kind swiglu: the target's router is one matrix");
  }
  if (config.norm_eps != kBlockNormEps) {
    obstacles.push_back(fmt::format(
        "norm_eps {}: the target's block norms have {}", config.norm_eps, kBlockNormEps));
  }
  std::string why;
  const auto selection = fixed_selection(config, plan, why);
  if (!selection) obstacles.push_back(why);
  if (!obstacles.empty()) return obstacles;

  const bool every_expert =
      selection->moe == ffn.n_experts && selection->moa == attention.n_experts;
  if (every_expert) {
    if (ffn.n_experts % attention.n_experts != 0) {
      obstacles.push_back(fmt::format(
          "moa.n_experts {}, moe.n_experts {}: the target has one number for both, and the first "
          "does not divide the second",
          attention.n_experts,
          ffn.n_experts));
    }
    return obstacles;
  }
  if (attention.n_experts != ffn.n_experts) {
    obstacles.push_back(
        fmt::format("moa.n_experts {}, moe.n_experts {}: the target has one number for both; they "
                    "may differ under policy all only",
                    attention.n_experts,
                    ffn.n_experts));
  }
  if (selection->moa != selection->moe) {
    obstacles.push_back(
        fmt::format("policy {}: the target selects as many attention experts as FFN experts",
                    plan.to_string()));
  }
  for (const auto& text :
       {weight_obstacle(ffn.router, selection->moe, ffn.n_experts, true),
        weight_obstacle(attention.router, selection->moa, attention.n_experts, true)}) {
    if (!text.empty()) obstacles.push_back(text);
  }
  return obstacles;
}

int64_t write_jetmoe(Io& io,
                     const Transformer& model,
                     const ExportRequest& request,
                     const std::string& out) {
  const auto& config = model->config();
  std::string why;
  const auto selection = fixed_selection(config, request.plan, why);
  if (!selection) throw Error("export: " + why);
  check_every_parameter_is_linked(model, links_of(model, /*copies=*/1));
  const auto links = links_of(model, config.ffn.n_experts / config.attention.n_experts);
  const auto json = config_of(config, selection->moe, request.dtype);
  write_hf_directory(io, out, json, links, request.dtype);
  return static_cast<int64_t>(links.size());
}

Transformer read_jetmoe(Io& io, const std::string& out) {
  const HfConfig json(io, out, "jetmoe");
  json.expect("activation_function", "silu");
  ModelConfig config;
  config.vocab_size = json.integer("vocab_size");
  config.d_model = json.integer("hidden_size");
  config.n_layers = json.integer("num_hidden_layers");
  config.max_seq_len = json.integer("max_position_embeddings");
  config.norm_eps = json.real("rms_norm_eps");
  config.rope_theta = json.rope_theta();
  config.tie_embeddings = json.boolean("tie_word_embeddings");
  auto& attention = config.attention;
  attention.head_dim = json.integer("kv_channels");
  attention.heads_per_expert = json.integer("num_key_value_heads");
  attention.n_experts = config.ffn.n_experts = json.integer("num_local_experts");
  config.ffn.activation = FfnActivation::kSwiglu;
  config.ffn.d_expert = json.integer("intermediate_size");
  attention.router = config.ffn.router = {.kind = RouterKind::kLinear, .renormalise = true};
  const auto policy = RoutingPolicy::top_k(json.integer("num_experts_per_tok")).to_string();
  config.training_policy = fmt::format("moe:{};moa:{}", policy, policy);
  Transformer model(config);
  read_hf_tensors(io, out, links_of(model, /*copies=*/1));
  return model;
}

}  // namespace dsmoe
