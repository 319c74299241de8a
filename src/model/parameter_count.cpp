#include "model/parameter_count.h"

namespace dsmoe {
namespace {

int64_t router_size(const RouterConfig& router, int64_t d_model, int64_t n_experts) {
  return d_model * router.hidden_rows() + router.width(d_model) * n_experts;
}

int64_t norm_size(const ModelConfig& config) {
  return config.norm == NormKind::kLayerNorm && config.bias ? 2 * config.d_model : config.d_model;
}

void add_attention(ParameterCount& count, const ModelConfig& config) {
  const auto& attention = config.attention;
  const bool moa = attention.kind == AttentionKind::kMoa;
  const int64_t d_queries =
      (moa ? attention.n_experts * attention.heads_per_expert : attention.n_heads) *
      attention.head_dim;
  const int64_t d_keys =
      (moa ? attention.heads_per_expert : attention.n_kv_heads) * attention.head_dim;
  count.matrices += 2 * config.d_model * (d_queries + d_keys);
  if (config.bias) count.biases += d_queries + 2 * d_keys;
  if (config.biases() != Biases::kNone) count.biases += config.d_model;
  if (attention.qk_norm) count.norms += d_queries + d_keys;
  if (moa) count.routers += router_size(attention.router, config.d_model, attention.n_experts);
}

void add_ffn(ParameterCount& count, const ModelConfig& config) {
  const auto& ffn = config.ffn;
  const int64_t width = config.has_ffn_experts() ? ffn.n_experts * ffn.d_expert : ffn.d_ffn;
  count.matrices += (n_inputs(config.ffn.activation) + 1) * width * config.d_model;
  if (config.bias) count.biases += n_inputs(config.ffn.activation) * width;
  if (config.biases() != Biases::kNone) count.biases += config.d_model;
}

// Parameters of one FFN expert: its matrices and their inner biases, if any.
int64_t ffn_expert_size(const ModelConfig& config) {
  const int64_t biases = config.bias ? n_inputs(config.ffn.activation) * config.ffn.d_expert : 0;
  return (n_inputs(config.ffn.activation) + 1) * config.ffn.d_expert * config.d_model + biases;
}

// Q and O of one attention expert.
int64_t attention_expert_size(const ModelConfig& config) {
  const int64_t width = config.attention.heads_per_expert * config.attention.head_dim;
  return 2 * width * config.d_model + (config.bias ? width : 0);
}

}  // namespace

ParameterCount count_parameters(const ModelConfig& config) {
  ParameterCount layer;
  add_attention(layer, config);
  add_ffn(layer, config);
  const int64_t n = config.n_layers;
  const auto n_ffn_routers = static_cast<int64_t>(all_experts(config).moe.size());
  const int64_t n_vocabulary_matrices = config.tie_embeddings ? 1 : 2;
  const int64_t n_positions = config.positions == PositionKind::kLearned ? config.max_seq_len : 0;
  return {.embeddings = (n_vocabulary_matrices * config.vocab_size + n_positions) * config.d_model,
          .matrices = n * layer.matrices,
          .routers =
              n * layer.routers +
              n_ffn_routers * router_size(config.ffn.router, config.d_model, config.ffn.n_experts),
          .norms = n * layer.norms + (2 * n + 1) * norm_size(config),
          .biases = n * layer.biases};
}

ActiveExperts all_experts(const ModelConfig& config) {
  const auto n_layers = static_cast<size_t>(config.n_layers);
  ActiveExperts active;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    if (config.has_ffn_experts(i)) active.moe.push_back(static_cast<double>(config.ffn.n_experts));
  }
  if (config.attention.kind == AttentionKind::kMoa) {
    active.moa.assign(n_layers, static_cast<double>(config.attention.n_experts));
  }
  return active;
}

double active_parameters(const ModelConfig& config, const ActiveExperts& active) {
  auto parameters = static_cast<double>(count_parameters(config).non_embedding());
  for (const double used : active.moe) {
    parameters -= (static_cast<double>(config.ffn.n_experts) - used) *
                  static_cast<double>(ffn_expert_size(config));
  }
  for (const double used : active.moa) {
    parameters -= (static_cast<double>(config.attention.n_experts) - used) *
                  static_cast<double>(attention_expert_size(config));
  }
  return parameters;
}

}  // namespace dsmoe
