#include "model/io/gguf_export.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "common/error.h"
#include "formats/gguf_reader.h"
#include "formats/gguf_writer.h"
#include "model/io/target_rules.h"
#include "model/io/tensor_link.h"

namespace dsmoe {
namespace {

constexpr int64_t kSharedWidth = 32;  // of the shared expert of zeros

GgufType gguf_type(at::ScalarType dtype) {
  return dtype == at::kFloat  ? GgufType::kF32
         : dtype == at::kHalf ? GgufType::kF16
                              : GgufType::kBf16;
}

at::ScalarType scalar_type(GgufType type) {
  return type == GgufType::kF32 ? at::kFloat : type == GgufType::kF16 ? at::kHalf : at::kBFloat16;
}

const char* architecture_of(const ModelConfig& config) {
  return config.attention.qk_norm ? "olmoe" : "qwen2moe";
}

// The shared expert that qwen2moe requires. Its gate is computed as silu(x) / x: not zero.
void add_shared_expert(std::vector<TensorLink>& links, const std::string& block, int64_t d_model) {
  const auto add = [&](const char* name, const at::Tensor& value, bool stays_float32) {
    links.push_back({.name = block + name,
                     .parts = {value},
                     .is_constant = true,
                     .stays_float32 = stays_float32});
  };
  add("ffn_gate_inp_shexp.weight", (at::arange(d_model, at::kFloat) + 1) / d_model, true);
  add("ffn_gate_shexp.weight", at::zeros({kSharedWidth, d_model}), false);
  add("ffn_up_shexp.weight", at::zeros({kSharedWidth, d_model}), false);
  add("ffn_down_shexp.weight", at::zeros({d_model, kSharedWidth}), false);
}

void add_block_links(std::vector<TensorLink>& links,
                     const Parameters& parameters,
                     const ModelConfig& config,
                     int64_t layer) {
  const auto block = fmt::format("blk.{}.", layer);
  const auto add = [&](const char* name, const char* ours, bool stays_float32 = false) {
    links.push_back({.name = block + name,
                     .parts = {parameters.of_block(layer, ours)},
                     .stays_float32 = stays_float32});
  };
  add("attn_norm.weight", "attention_norm.weight", true);
  add("attn_q.weight", "attention.q_proj.weight");
  add("attn_k.weight", "attention.k_proj.weight");
  add("attn_v.weight", "attention.v_proj.weight");
  add("attn_output.weight", "attention.o_proj.weight");
  if (config.attention.qk_norm) {
    add("attn_q_norm.weight", "attention.q_norm.weight", true);
    add("attn_k_norm.weight", "attention.k_norm.weight", true);
  }
  add("ffn_norm.weight", "ffn_norm.weight", true);
  add("ffn_gate_inp.weight", "moe.router.out_proj.weight", true);
  const auto experts = [&](const char* name, const at::Tensor& value) {
    links.push_back({block + name, {value}});
  };
  const auto wide = [&](const char* name) { return parameters.of_block(layer, name); };
  const int64_t n_experts = config.ffn.n_experts;
  experts("ffn_gate_exps.weight", expert_rows(wide("moe.experts.gate_proj.weight"), n_experts));
  experts("ffn_up_exps.weight", expert_rows(wide("moe.experts.up_proj.weight"), n_experts));
  experts("ffn_down_exps.weight", expert_columns(wide("moe.experts.down_proj.weight"), n_experts));
  if (!config.attention.qk_norm) add_shared_expert(links, block, config.d_model);
}

std::vector<TensorLink> links_of(const Transformer& model) {
  const Parameters parameters(model);
  const auto& config = model->config();
  // The head is required: a tied embedding is written twice.
  std::vector<TensorLink> links{
      {"token_embd.weight", {parameters.at("embedding")}},
      {.name = "output_norm.weight",
       .parts = {parameters.at("final_norm.weight")},
       .stays_float32 = true},
      {"output.weight", {parameters.at(config.tie_embeddings ? "embedding" : "head.weight")}}};
  for (int64_t i = 0; i < config.n_layers; ++i) add_block_links(links, parameters, config, i);
  return links;
}

GgufMetadata metadata_of(const ModelConfig& config, int64_t top_k, const ExportRequest& request) {
  const std::string architecture = architecture_of(config);
  const auto count = [](int64_t value) { return static_cast<uint32_t>(value); };
  const auto& attention = config.attention;
  GgufMetadata metadata{{"general.architecture", architecture},
                        {"general.file_type",
                         count(request.dtype == at::kFloat  ? 0
                               : request.dtype == at::kHalf ? 1
                                                            : 32)}};
  const GgufMetadata no_vocabulary{{"tokenizer.ggml.model", std::string("no_vocab")}};
  const auto& tokenizer = request.gguf_tokenizer.empty() ? no_vocabulary : request.gguf_tokenizer;
  metadata.insert(metadata.end(), tokenizer.begin(), tokenizer.end());
  const auto add = [&](const char* key, GgufValue value) {
    metadata.emplace_back(architecture + "." + key, std::move(value));
  };
  add("vocab_size", count(config.vocab_size));
  add("context_length", count(config.max_seq_len));
  add("embedding_length", count(config.d_model));
  add("block_count", count(config.n_layers));
  add("feed_forward_length", count(config.ffn.d_expert));
  add("attention.head_count", count(attention.n_heads));
  add("attention.head_count_kv", count(attention.n_kv_heads));
  add("attention.key_length", count(attention.head_dim));
  add("attention.value_length", count(attention.head_dim));
  add("attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_eps));
  add("rope.freq_base", static_cast<float>(config.rope_theta));
  add("rope.dimension_count", count(attention.head_dim));
  add("expert_count", count(config.ffn.n_experts));
  add("expert_used_count", count(top_k));
  if (!attention.qk_norm) {
    // Without this key llama.cpp derives the width from feed_forward_length and the experts used.
    add("expert_feed_forward_length", count(config.ffn.d_expert));
    add("expert_shared_feed_forward_length", count(kSharedWidth));
  }
  return metadata;
}

// Typed metadata of a file, under the prefix of its architecture.
class GgufKeys {
 public:
  GgufKeys(const GgufFile& file, const std::string& path)
      : file_(file), path_(path), architecture_(get<std::string>("general.architecture")) {}
  const std::string& architecture() const { return architecture_; }
  int64_t count(const std::string& key) const { return get<uint32_t>(architecture_ + "." + key); }
  double real(const std::string& key) const { return get<float>(architecture_ + "." + key); }

 private:
  template <class T>
  T get(const std::string& key) const {
    const auto* value = file_.find_value(key);
    if (value == nullptr || !std::holds_alternative<T>(*value)) {
      throw Error(fmt::format("{}: expected metadata '{}' of its type, got none", path_, key));
    }
    return std::get<T>(*value);
  }
  const GgufFile& file_;
  std::string path_;
  std::string architecture_;
};

ModelConfig read_config(const GgufFile& file, const std::string& path) {
  const GgufKeys keys(file, path);
  if (keys.architecture() != "olmoe" && keys.architecture() != "qwen2moe") {
    throw Error(fmt::format(
        "{}: expected architecture olmoe or qwen2moe, got '{}'", path, keys.architecture()));
  }
  ModelConfig config;
  config.vocab_size = keys.count("vocab_size");
  config.d_model = keys.count("embedding_length");
  config.n_layers = keys.count("block_count");
  config.max_seq_len = keys.count("context_length");
  config.norm_eps = keys.real("attention.layer_norm_rms_epsilon");
  config.rope_theta = keys.real("rope.freq_base");
  config.tie_embeddings = false;
  auto& attention = config.attention;
  attention.kind = AttentionKind::kDense;
  attention.qk_norm = keys.architecture() == "olmoe";
  attention.n_heads = keys.count("attention.head_count");
  attention.n_kv_heads = keys.count("attention.head_count_kv");
  attention.head_dim = keys.count("attention.key_length");
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.n_experts = keys.count("expert_count");
  config.ffn.d_expert = keys.count("feed_forward_length");
  config.ffn.router.kind = RouterKind::kLinear;
  config.training_policy = RoutingPolicy::top_k(keys.count("expert_used_count")).to_string();
  return config;
}

}  // namespace

std::vector<std::string> gguf_obstacles(const ModelConfig& config, const RoutingPlan& plan) {
  auto obstacles = common_obstacles(config);
  for (auto& text : plain_expert_obstacles(config)) obstacles.push_back(std::move(text));
  const auto& attention = config.attention;
  if (attention.kind != AttentionKind::kDense) {
    obstacles.emplace_back("attention.kind moa: the target's attention is dense");
  } else if (attention.qk_norm && attention.n_kv_heads != attention.n_heads) {
    obstacles.push_back(fmt::format(
        "attention.qk_norm with n_kv_heads {} of n_heads {}: the architecture olmoe, the only "
        "one with that norm, requires them to be equal",
        attention.n_kv_heads,
        attention.n_heads));
  }
  if (attention.kind == AttentionKind::kDense &&
      attention.n_heads * attention.head_dim != config.d_model) {
    obstacles.push_back(
        fmt::format("attention: {} heads of {} make {}, the target's make d_model "
                    "= {}",
                    attention.n_heads,
                    attention.head_dim,
                    attention.n_heads * attention.head_dim,
                    config.d_model));
  }
  std::string why;
  const auto selection = fixed_selection(config, plan, why);
  if (!selection) {
    obstacles.push_back(why);
  } else if (config.ffn.kind == FfnKind::kMoe) {
    why = weight_obstacle(config.ffn.router, selection->moe, config.ffn.n_experts, false);
    if (!why.empty()) obstacles.push_back(why);
  }
  return obstacles;
}

int64_t write_gguf(Io& io,
                   const Transformer& model,
                   const ExportRequest& request,
                   const std::string& out) {
  std::string why;
  const auto selection = fixed_selection(model->config(), request.plan, why);
  if (!selection) throw Error("export: " + why);
  const auto links = links_of(model);
  check_every_parameter_is_linked(model, links);
  std::vector<GgufTensor> tensors;
  for (const auto& link : links) {
    tensors.push_back({link.name,
                       gguf_type(link.stays_float32 ? at::kFloat : request.dtype),
                       link.parts[0].sizes().vec()});
  }
  GgufWriter writer(io, out, metadata_of(model->config(), selection->moe, request), tensors);
  for (const auto& link : links) writer.add(gather(link, request.dtype).const_data_ptr());
  writer.finish();
  return static_cast<int64_t>(links.size());
}

Transformer read_gguf(Io& io, const std::string& out) {
  const GgufFile file(io, out);
  Transformer model(read_config(file, out));
  const auto links = links_of(model);
  std::vector<std::string> names;
  for (const auto& tensor : file.tensors()) names.push_back(tensor.name);
  check_names(links, names, out);
  for (const auto& link : links) {
    const auto* tensor = file.find_tensor(link.name);
    const auto value = at::empty(tensor->shape, scalar_type(tensor->type));
    file.read(*tensor, value.data_ptr());
    scatter(link, value);
  }
  return model;
}

}  // namespace dsmoe
