#include "model/parameter_count.h"

#include "model/named_tensors.h"

namespace dsmoe {
namespace {

bool is_embedding(const std::string& name) {
  return name == "embedding" || name == "position_embedding" || name.rfind("head.", 0) == 0;
}

// Parameters of one FFN expert: its matrices and, where there are any, their inner biases.
int64_t ffn_expert_size(const ModelConfig& config) {
  const int64_t n_in = config.ffn.activation == FfnActivation::kSwiglu ? 2 : 1;
  const int64_t biases = config.bias ? n_in * config.ffn.d_expert : 0;
  return (n_in + 1) * config.ffn.d_expert * config.d_model + biases;
}

// Q and O of one attention expert.
int64_t attention_expert_size(const ModelConfig& config) {
  const int64_t width = config.attention.heads_per_expert * config.attention.head_dim;
  return 2 * width * config.d_model + (config.bias ? width : 0);
}

}  // namespace

ParameterCount count_parameters(const Transformer& model) {
  ParameterCount count;
  for (const auto& [name, tensor] : named_parameters(*model)) {
    count.total += tensor.numel();
    if (is_embedding(name)) count.embedding += tensor.numel();
  }
  return count;
}

ActiveExperts all_experts(const ModelConfig& config) {
  const auto n_layers = static_cast<size_t>(config.n_layers);
  ActiveExperts active;
  if (config.ffn.kind == FfnKind::kMoe) {
    active.moe.assign(n_layers, static_cast<double>(config.ffn.n_experts));
  }
  if (config.attention.kind == AttentionKind::kMoa) {
    active.moa.assign(n_layers, static_cast<double>(config.attention.n_experts));
  }
  return active;
}

double active_parameters(const Transformer& model, const ActiveExperts& active) {
  const auto& config = model->config();
  auto parameters = static_cast<double>(count_parameters(model).non_embedding());
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
