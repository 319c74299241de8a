#include "model/io/olmoe_export.h"

#include <fmt/format.h>

#include "common/error.h"
#include "model/io/hf_directory.h"
#include "model/io/target_rules.h"
#include "model/io/tensor_link.h"

namespace dsmoe {
namespace {

std::vector<TensorLink> olmoe_block_links(const Parameters& parameters,
                                          const ModelConfig& config,
                                          int64_t layer) {
  const auto of = [&](const char* name) { return parameters.of_block(layer, name); };
  const auto name = [&](const std::string& tail) {
    return fmt::format("model.layers.{}.{}", layer, tail);
  };
  std::vector<TensorLink> links{{name("input_layernorm.weight"), {of("attention_norm.weight")}},
                                {name("post_attention_layernorm.weight"), {of("ffn_norm.weight")}},
                                {name("mlp.gate.weight"), {of("moe.router.out_proj.weight")}}};
  for (const char* part : {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"}) {
    links.push_back({name(fmt::format("self_attn.{}.weight", part)),
                     {of(fmt::format("attention.{}.weight", part).c_str())}});
  }
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    const auto wide = of(fmt::format("moe.experts.{}.weight", part).c_str());
    const auto experts = std::string(part) == "down_proj"
                             ? expert_columns(wide, config.ffn.n_experts)
                             : expert_rows(wide, config.ffn.n_experts);
    for (int64_t i = 0; i < config.ffn.n_experts; ++i) {
      links.push_back({name(fmt::format("mlp.experts.{}.{}.weight", i, part)), {experts[i]}});
    }
  }
  return links;
}

std::vector<TensorLink> olmoe_links(const Transformer& model) {
  const Parameters parameters(model);
  const auto& config = model->config();
  std::vector<TensorLink> links{{"model.embed_tokens.weight", {parameters.at("embedding")}},
                                {"model.norm.weight", {parameters.at("final_norm.weight")}}};
  if (!config.tie_embeddings) links.push_back({"lm_head.weight", {parameters.at("head.weight")}});
  for (int64_t i = 0; i < config.n_layers; ++i) {
    for (auto& link : olmoe_block_links(parameters, config, i)) links.push_back(std::move(link));
  }
  return links;
}

nlohmann::ordered_json olmoe_config(const ModelConfig& config,
                                    int64_t top_k,
                                    at::ScalarType dtype) {
  return {{"architectures", {"OlmoeForCausalLM"}},
          {"model_type", "olmoe"},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.d_model},
          {"intermediate_size", config.ffn.d_expert},
          {"num_hidden_layers", config.n_layers},
          {"num_attention_heads", config.attention.n_heads},
          {"num_key_value_heads", config.attention.n_kv_heads},
          {"hidden_act", "silu"},
          {"max_position_embeddings", config.max_seq_len},
          {"rms_norm_eps", config.norm_eps},
          {"rope_theta", config.rope_theta},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", config.rope_theta}}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"clip_qkv", nullptr},
          {"num_experts", config.ffn.n_experts},
          {"num_experts_per_tok", top_k},
          {"norm_topk_prob", config.ffn.router.renormalise},
          {"tie_word_embeddings", config.tie_embeddings},
          {"torch_dtype", hf_dtype_name(dtype)}};
}

}  // namespace

std::vector<std::string> olmoe_obstacles(const ModelConfig& config, const RoutingPlan& plan) {
  auto obstacles = common_obstacles(config);
  for (auto& text : plain_expert_obstacles(config)) obstacles.push_back(std::move(text));
  const auto& attention = config.attention;
  if (attention.kind != AttentionKind::kDense) {
    obstacles.emplace_back("attention.kind moa: the target's attention is dense");
  } else {
    if (!attention.qk_norm) {
      obstacles.emplace_back("attention.qk_norm false: the target always norms queries and keys");
    }
    if (attention.n_heads * attention.head_dim != config.d_model) {
      obstacles.push_back(
          fmt::format("attention: {} heads of {} make {}, the target's make d_model = {}",
                      attention.n_heads,
                      attention.head_dim,
                      attention.n_heads * attention.head_dim,
                      config.d_model));
    }
  }
  std::string why;
  if (!fixed_selection(config, plan, why)) obstacles.push_back(why);
  return obstacles;
}

int64_t write_olmoe(Io& io,
                    const Transformer& model,
                    const ExportRequest& request,
                    const std::string& out) {
  std::string why;
  const auto selection = fixed_selection(model->config(), request.plan, why);
  if (!selection) throw Error("export: " + why);
  const auto links = olmoe_links(model);
  check_every_parameter_is_linked(model, links);
  const auto json = olmoe_config(model->config(), selection->moe, request.dtype);
  write_hf_directory(io, out, json, links, request);
  return static_cast<int64_t>(links.size());
}

Transformer read_olmoe(Io& io, const std::string& out) {
  const HfConfig json(io, out, "olmoe");
  json.expect("hidden_act", "silu");
  json.expect("attention_bias", false);
  json.expect("clip_qkv", nullptr);
  ModelConfig config;
  config.vocab_size = json.integer("vocab_size");
  config.d_model = json.integer("hidden_size");
  config.n_layers = json.integer("num_hidden_layers");
  config.max_seq_len = json.integer("max_position_embeddings");
  config.norm_eps = json.real("rms_norm_eps");
  config.rope_theta = json.rope_theta();
  config.tie_embeddings = json.boolean("tie_word_embeddings");
  auto& attention = config.attention;
  attention.kind = AttentionKind::kDense;
  attention.qk_norm = true;
  attention.n_heads = json.integer("num_attention_heads");
  attention.n_kv_heads = json.integer("num_key_value_heads");
  attention.head_dim = config.d_model / attention.n_heads;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.n_experts = json.integer("num_experts");
  config.ffn.d_expert = json.integer("intermediate_size");
  config.ffn.router = {.kind = RouterKind::kLinear, .renormalise = json.boolean("norm_topk_prob")};
  config.training_policy = RoutingPolicy::top_k(json.integer("num_experts_per_tok")).to_string();
  Transformer model(config);
  read_hf_tensors(io, out, olmoe_links(model));
  return model;
}

}  // namespace dsmoe
