#include "model/flops.h"

#include <numeric>

namespace dsmoe {

double forward_flops_per_token(const ModelConfig& config,
                               const ActiveExperts& active,
                               double n_keys) {
  const auto& attention = config.attention;
  const double heads_of_all_layers =
      attention.kind == AttentionKind::kMoa
          ? std::accumulate(active.moa.begin(), active.moa.end(), 0.0) *
                static_cast<double>(attention.heads_per_expert)
          : static_cast<double>(config.n_layers * attention.n_heads);
  const double head = static_cast<double>(config.vocab_size * config.d_model);
  return 2.0 * (active_parameters(config, active) + head) +
         4.0 * n_keys * heads_of_all_layers * static_cast<double>(attention.head_dim);
}

double train_flops_per_token(const ModelConfig& config, int64_t seq_len) {
  return train_flops_per_token(config, all_experts(config), seq_len);
}

double train_flops_per_token(const ModelConfig& config,
                             const ActiveExperts& active,
                             int64_t seq_len) {
  return 3.0 * forward_flops_per_token(config, active, static_cast<double>(seq_len) / 2.0);
}

}  // namespace dsmoe
