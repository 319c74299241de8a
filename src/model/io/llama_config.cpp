#include "model/io/llama_config.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <optional>

#include "common/error.h"
#include "formats/json_limits.h"
#include "model/io/llama_keys.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;
constexpr int64_t kMaxLlamaSize = int64_t{1} << 24;

// One JSON object; a key with the value null counts as missing.
class Section {
 public:
  Section(const Json& json, std::string who) : json_(json), who_(std::move(who)) {
    if (!json.is_object()) throw Error(fmt::format("{}: expected a JSON object", who_));
  }

  const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t size(const char* key, std::optional<int64_t> missing = std::nullopt) const {
    const auto* value = find(key);
    if (value == nullptr && missing) return *missing;
    if (value == nullptr || !value->is_number_integer() || value->get<double>() < 1 ||
        value->get<double>() > static_cast<double>(kMaxLlamaSize)) {
      fail(key, fmt::format("a whole number from 1 to {}", kMaxLlamaSize));
    }
    return value->get<int64_t>();
  }
  double number(const char* key, std::optional<double> missing = std::nullopt) const {
    const auto* value = find(key);
    if (value == nullptr && missing) return *missing;
    if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>()) ||
        value->get<double>() < 0) {
      fail(key, "a number");
    }
    return value->get<double>();
  }
  bool boolean(const char* key, bool missing) const {
    const auto* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) fail(key, "true or false");
    return value->get<bool>();
  }
  std::string text(const char* key, const std::string& missing) const {
    const auto* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_string()) fail(key, "a text");
    return value->get<std::string>();
  }
  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    const auto* value = find(key);
    throw Error(fmt::format("{}: '{}': expected {}, got {}",
                            who_,
                            key,
                            expected,
                            value == nullptr ? "none" : value->dump().substr(0, 60)));
  }
  const std::string& who() const { return who_; }

 private:
  const Json& json_;
  std::string who_;
};

// `rope_type` in new files, `type` in old ones.
std::string rope_kind(const Section& section) {
  return section.text("rope_type", section.text("type", "default"));
}

void read_rope_scaling(const Section& section, RopeScalingConfig& scaling) {
  const auto kind = rope_kind(section);
  if (kind == "default") return;
  if (kind != "llama3") {
    throw Error(fmt::format(
        "{}: rotary scaling '{}' is not supported; expected none or llama3", section.who(), kind));
  }
  scaling.kind = RopeScalingKind::kLlama3;
  scaling.factor = section.number("factor");
  scaling.low_freq_factor = section.number("low_freq_factor");
  scaling.high_freq_factor = section.number("high_freq_factor");
  scaling.original_max_seq_len = section.size("original_max_position_embeddings");
  if (scaling.factor < 1.0 || scaling.low_freq_factor <= 0.0) {
    throw Error(fmt::format("{}: expected a factor of 1 or more and a low_freq_factor above 0",
                            section.who()));
  }
}

// The newer spelling has one object `rope_parameters`, the older one two keys.
void read_rope(const Section& config, ModelConfig& model) {
  constexpr double kDefaultTheta = 10000.0;
  if (const auto* parameters = config.find("rope_parameters")) {
    const Section section(*parameters, config.who() + ": rope_parameters");
    model.rope_theta = section.number("rope_theta", config.number("rope_theta", kDefaultTheta));
    read_rope_scaling(section, model.rope_scaling);
  } else {
    model.rope_theta = config.number("rope_theta", kDefaultTheta);
    if (const auto* scaling = config.find("rope_scaling")) {
      read_rope_scaling(Section(*scaling, config.who() + ": rope_scaling"), model.rope_scaling);
    }
  }
  if (model.rope_theta < 1.0) config.fail("rope_theta", "a number of 1 or more");
}

void check_architecture(const Section& config) {
  const auto kind = config.text("model_type", "");
  if (kind != "llama") {
    throw Error(
        fmt::format("{}: expected model_type llama, got '{}'", config.who(), kind.substr(0, 60)));
  }
  const auto activation = config.text("hidden_act", "silu");
  if (activation != "silu") config.fail("hidden_act", "silu");
}

void read_attention(const Section& config, ModelConfig& model) {
  auto& attention = model.attention;
  attention.kind = AttentionKind::kDense;
  attention.n_heads = config.size("num_attention_heads");
  attention.n_kv_heads = config.size("num_key_value_heads", attention.n_heads);
  if (config.find("head_dim") == nullptr && model.d_model % attention.n_heads != 0) {
    config.fail("num_attention_heads", fmt::format("a divisor of {}", model.d_model));
  }
  attention.head_dim =
      config.size("head_dim", std::max<int64_t>(model.d_model / attention.n_heads, 1));
}

void add_linear(std::vector<LlamaTensor>& tensors,
                const std::pair<std::string, std::string>& names,
                std::vector<int64_t> shape,
                bool bias,
                int64_t n_rotary_heads = 0) {
  const int64_t d_out = shape[0];
  tensors.push_back(
      {names.first + ".weight", names.second + ".weight", std::move(shape), n_rotary_heads});
  if (!bias) return;
  tensors.push_back({names.first + ".bias", names.second + ".bias", {d_out}, n_rotary_heads});
}

void add_block(std::vector<LlamaTensor>& tensors, const ModelConfig& config, int64_t layer) {
  const auto hf = fmt::format("model.layers.{}.", layer);
  const auto own = fmt::format("blocks_{}.", layer);
  const auto add = [&](const std::string& hf_name,
                       const std::string& name,
                       std::vector<int64_t> shape,
                       int64_t n_rotary_heads = 0) {
    add_linear(tensors, {hf + hf_name, own + name}, std::move(shape), config.bias, n_rotary_heads);
  };
  const auto& attention = config.attention;
  const int64_t d = config.d_model;
  const int64_t d_q = attention.n_heads * attention.head_dim;
  const int64_t d_kv = attention.n_kv_heads * attention.head_dim;
  const std::string ffn = config.has_ffn_experts(layer) ? "moe.experts." : "ffn.";
  tensors.push_back({hf + "input_layernorm.weight", own + "attention_norm.weight", {d}});
  add("self_attn.q_proj", "attention.q_proj", {d_q, d}, attention.n_heads);
  add("self_attn.k_proj", "attention.k_proj", {d_kv, d}, attention.n_kv_heads);
  add("self_attn.v_proj", "attention.v_proj", {d_kv, d});
  add("self_attn.o_proj", "attention.o_proj", {d, d_q});
  tensors.push_back({hf + "post_attention_layernorm.weight", own + "ffn_norm.weight", {d}});
  add("mlp.gate_proj", ffn + "gate_proj", {config.ffn.d_ffn, d});
  add("mlp.up_proj", ffn + "up_proj", {config.ffn.d_ffn, d});
  add("mlp.down_proj", ffn + "down_proj", {d, config.ffn.d_ffn});
}

}  // namespace

LlamaConfig parse_llama_config(const std::string& text, const std::string& source_name) {
  const auto json = parse_json(text, source_name, JsonLimits{});
  const Section config(json, source_name);
  check_architecture(config);
  LlamaConfig result;
  result.unknown_keys = check_llama_keys(json, source_name);
  auto& model = result.model;
  model.d_model = config.size("hidden_size");
  model.n_layers = config.size("num_hidden_layers");
  if (model.n_layers > 4096) config.fail("num_hidden_layers", "at most 4096");
  model.vocab_size = config.size("vocab_size");
  model.max_seq_len = config.size("max_position_embeddings");
  model.norm_eps = config.number("rms_norm_eps", 1e-6);
  model.tie_embeddings = config.boolean("tie_word_embeddings", false);
  model.bias = config.boolean("attention_bias", false);
  if (model.bias != config.boolean("mlp_bias", false)) {
    throw Error(fmt::format(
        "{}: attention_bias and mlp_bias differ; biases are supported in both or in none",
        source_name));
  }
  read_attention(config, model);
  model.ffn.kind = FfnKind::kDense;
  model.ffn.activation = Activation::kSwiglu;
  model.ffn.d_ffn = config.size("intermediate_size");
  read_rope(config, model);
  model.validate();
  return result;
}

std::vector<std::string> llama_obstacles(const ModelConfig& config) {
  std::vector<std::string> obstacles;
  const auto obstacle = [&](bool there, const char* what) {
    if (there) obstacles.emplace_back(what);
  };
  obstacle(config.attention.kind != AttentionKind::kDense,
           "attention.kind moa: a LLaMA has dense attention");
  obstacle(config.attention.qk_norm, "attention.qk_norm: a LLaMA has no norms of queries and keys");
  obstacle(config.ffn.kind == FfnKind::kMoe, "ffn.kind moe: a LLaMA has no experts");
  obstacle(config.ffn.activation != Activation::kSwiglu,
           "ffn.activation other than swiglu: a LLaMA has SwiGLU");
  obstacle(config.output_bias && !config.bias,
           "output_bias: a LLaMA has biases in all projections or in none");
  obstacle(config.norm != NormKind::kRmsNorm, "norm layer_norm: a LLaMA has RMSNorm");
  obstacle(config.positions != PositionKind::kRotary,
           "positions learned: a LLaMA has rotary positions");
  return obstacles;
}

nlohmann::ordered_json llama_config_to_json(const ModelConfig& model,
                                            const std::string& torch_dtype) {
  nlohmann::ordered_json json = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_size", model.d_model},
                                 {"intermediate_size", model.ffn.d_ffn},
                                 {"num_hidden_layers", model.n_layers},
                                 {"num_attention_heads", model.attention.n_heads},
                                 {"num_key_value_heads", model.attention.n_kv_heads},
                                 {"head_dim", model.attention.head_dim},
                                 {"hidden_act", "silu"},
                                 {"rms_norm_eps", model.norm_eps},
                                 {"rope_theta", model.rope_theta},
                                 {"max_position_embeddings", model.max_seq_len},
                                 {"tie_word_embeddings", model.tie_embeddings},
                                 {"vocab_size", model.vocab_size},
                                 {"attention_bias", model.bias},
                                 {"mlp_bias", model.bias},
                                 {"torch_dtype", torch_dtype}};
  const auto& scaling = model.rope_scaling;
  if (scaling.kind == RopeScalingKind::kLlama3) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", scaling.factor},
                            {"low_freq_factor", scaling.low_freq_factor},
                            {"high_freq_factor", scaling.high_freq_factor},
                            {"original_max_position_embeddings", scaling.original_max_seq_len}};
  }
  return json;
}

std::vector<LlamaTensor> llama_tensors(const ModelConfig& config) {
  std::vector<LlamaTensor> tensors;
  tensors.push_back(
      {"model.embed_tokens.weight", "embedding", {config.vocab_size, config.d_model}});
  for (int64_t i = 0; i < config.n_layers; ++i) add_block(tensors, config, i);
  tensors.push_back({"model.norm.weight", "final_norm.weight", {config.d_model}});
  if (!config.tie_embeddings) {
    tensors.push_back({"lm_head.weight", "head.weight", {config.vocab_size, config.d_model}});
  }
  return tensors;
}

}  // namespace dsmoe
