#include "model/io/jetmoe_export.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <optional>

#include "common/error.h"
#include "model/io/hf_directory.h"
#include "model/io/target_rules.h"
#include "model/io/tensor_link.h"

namespace dsmoe {
namespace {

constexpr double kBlockNormEps = 1e-6;  // fixed in the target's block norms
constexpr double kQuickGelu = 1.702;

// An expert of the target computes W_out (act(a) b) of two products a, b. An activation of one
// product x is written with a = first_factor x, b = x.
struct GatedForm {
  const char* function;  // the target's name of act
  bool repeats;          // a and b come from up_proj
  double first_factor;
};

std::optional<GatedForm> gated_form(Activation activation) {
  switch (activation) {
    case Activation::kSwiglu:
      return GatedForm{"silu", false, 1.0};
    case Activation::kSilu:
      return GatedForm{"sigmoid", true, 1.0};
    case Activation::kQuickGelu:
      return GatedForm{"sigmoid", true, kQuickGelu};
    case Activation::kReluSquared:
      return GatedForm{"relu", true, 1.0};
    case Activation::kIdentity:
    case Activation::kGelu:
    case Activation::kGeluTanh:
      break;
  }
  return std::nullopt;
}

// [n_experts, ...] -> [copies * n_experts, ...], each expert's copies together
at::Tensor repeat_experts(const at::Tensor& experts, int64_t copies) {
  if (copies == 1) return experts;
  auto shape = experts.sizes().vec();
  shape.insert(shape.begin() + 1, copies);
  return experts.unsqueeze(1).expand(shape).flatten(0, 1);
}

// copies: number of times that the file contains each attention expert
std::vector<TensorLink> jetmoe_block_links(const Parameters& parameters,
                                           const ModelConfig& config,
                                           int64_t layer,
                                           int64_t copies) {
  const auto of = [&](const char* name) { return parameters.of_block(layer, name); };
  const int64_t n_attention = config.attention.n_experts;
  const int64_t n_ffn = config.ffn.n_experts;
  const auto name = [&](const char* tail) {
    return fmt::format("model.layers.{}.{}", layer, tail);
  };
  const auto form = gated_form(config.ffn.activation).value();
  const auto up = expert_rows(of("moe.experts.up_proj.weight"), n_ffn);
  const auto bias = [&](const char* tail, const char* own) {
    if (config.output_bias) return TensorLink{.name = name(tail), .parts = {of(own)}};
    return TensorLink{
        .name = name(tail), .parts = {at::zeros({config.d_model})}, .is_constant = true};
  };
  return {
      {name("input_layernorm.weight"), {of("attention_norm.weight")}},
      {name("self_attention.kv_proj.weight"), {of("moa.k_proj.weight"), of("moa.v_proj.weight")}},
      {name("self_attention.experts.router.layer.weight"),
       {repeat_experts(of("moa.router.out_proj.weight"), copies)}},
      {name("self_attention.experts.input_linear.weight"),
       {repeat_experts(expert_rows(of("moa.q_proj.weight"), n_attention), copies)}},
      {name("self_attention.experts.output_linear.weight"),
       {repeat_experts(expert_columns(of("moa.o_proj.weight"), n_attention), copies)}},
      bias("self_attention.experts.bias", "moa.o_proj.bias"),
      {name("post_attention_layernorm.weight"), {of("ffn_norm.weight")}},
      {name("mlp.router.layer.weight"), {of("moe.router.out_proj.weight")}},
      {.name = name("mlp.input_linear.weight"),
       .parts = {form.repeats ? up : expert_rows(of("moe.experts.gate_proj.weight"), n_ffn), up},
       .axis = 1,
       .first_factor = form.first_factor},
      {name("mlp.output_linear.weight"),
       {expert_columns(of("moe.experts.down_proj.weight"), n_ffn)}},
      bias("mlp.bias", "moe.experts.down_proj.bias")};
}

std::vector<TensorLink> jetmoe_links(const Transformer& model, int64_t copies) {
  const Parameters parameters(model);
  const auto& config = model->config();
  std::vector<TensorLink> links{{"model.embed_tokens.weight", {parameters.at("embedding")}},
                                {"model.norm.weight", {parameters.at("final_norm.weight")}}};
  if (!config.tie_embeddings) links.push_back({"lm_head.weight", {parameters.at("head.weight")}});
  for (int64_t i = 0; i < config.n_layers; ++i) {
    for (auto& link : jetmoe_block_links(parameters, config, i, copies))
      links.push_back(std::move(link));
  }
  return links;
}

nlohmann::ordered_json jetmoe_config(const ModelConfig& config,
                                     int64_t top_k,
                                     at::ScalarType dtype) {
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
      {"activation_function", gated_form(config.ffn.activation).value().function},
      {"num_local_experts", config.ffn.n_experts},
      {"num_experts_per_tok", top_k},
      {"tie_word_embeddings", config.tie_embeddings},
      {"rms_norm_eps", config.norm_eps},
      {"rope_theta", config.rope_theta},
      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", config.rope_theta}}},
      {"attention_dropout", 0.0},
      {"torch_dtype", hf_dtype_name(dtype)}};
  // Without this key some releases derive the rotary size from hidden_size.
  if (attention.head_dim * attention.heads_per_expert * top_k != config.d_model) {
    json["head_dim"] = attention.head_dim;
  }
  return json;
}

// input_linear [n_experts, 2 * d_expert, d_model] of one layer
Activation activation_of(const HfConfig& json, const at::Tensor& input_linear) {
  const auto function = json.text("activation_function");
  if (function == "silu") return Activation::kSwiglu;
  if (function == "relu") return Activation::kReluSquared;
  if (function != "sigmoid") json.expect("activation_function", "silu, sigmoid or relu");
  const auto halves = input_linear.chunk(2, 1);
  return at::equal(halves[0], halves[1]) ? Activation::kSilu : Activation::kQuickGelu;
}

// The target always has biases; biases that are all zero count as none.
bool has_output_biases(Io& io, const std::string& directory, int64_t n_layers) {
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    for (const char* tail : {"self_attention.experts.bias", "mlp.bias"}) {
      const auto bias =
          read_hf_tensor(io, directory, fmt::format("model.layers.{}.{}", layer, tail));
      if (bias.count_nonzero().item<int64_t>() != 0) return true;
    }
  }
  return false;
}

}  // namespace

std::vector<std::string> jetmoe_obstacles(const ModelConfig& config, const RoutingPlan& plan) {
  auto obstacles = common_obstacles(config);
  const auto& attention = config.attention;
  const auto& ffn = config.ffn;
  if (attention.kind != AttentionKind::kMoa) {
    obstacles.emplace_back("attention.kind dense: the target has attention experts");
  } else {
    add_router_obstacle(attention.router, "moa", obstacles);
  }
  if (config.norm_eps != kBlockNormEps) {
    obstacles.push_back(fmt::format(
        "norm_eps {}: the target's block norms have {}", config.norm_eps, kBlockNormEps));
  }
  if (!gated_form(ffn.activation)) {
    obstacles.push_back(fmt::format(
        "ffn.activation {}: the target has SwiGLU experts, which can also express silu, "
        "quick_gelu and relu_squared",
        activation_name(ffn.activation)));
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
  if (config.ffn.activation == Activation::kQuickGelu && request.dtype != at::kFloat) {
    throw Error(
        fmt::format("export: expected float32 for ffn.activation quick_gelu, got {}: the file has "
                    "{} times the weights, and fewer bits would round them",
                    hf_dtype_name(request.dtype),
                    kQuickGelu));
  }
  check_every_parameter_is_linked(model, jetmoe_links(model, /*copies=*/1));
  const auto links = jetmoe_links(model, config.ffn.n_experts / config.attention.n_experts);
  const auto json = jetmoe_config(config, selection->moe, request.dtype);
  write_hf_directory(io, out, json, links, request);
  return static_cast<int64_t>(links.size());
}

Transformer read_jetmoe(Io& io, const std::string& out) {
  const HfConfig json(io, out, "jetmoe");
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
  config.ffn.d_expert = json.integer("intermediate_size");
  config.ffn.activation =
      activation_of(json, read_hf_tensor(io, out, "model.layers.0.mlp.input_linear.weight"));
  config.output_bias = has_output_biases(io, out, config.n_layers);
  attention.router = config.ffn.router = {.kind = RouterKind::kLinear, .renormalise = true};
  const auto policy = RoutingPolicy::top_k(json.integer("num_experts_per_tok")).to_string();
  config.training_policy = fmt::format("moe:{};moa:{}", policy, policy);
  Transformer model(config);
  read_hf_tensors(io, out, jetmoe_links(model, /*copies=*/1));
  return model;
}

}  // namespace dsmoe
