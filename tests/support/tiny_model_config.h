#pragma once

#include <cstdint>

#include "model/model_config.h"

namespace dsmoe {

/// Odd sizes with experts of both kinds, over the byte tokenizer's ids.
inline ModelConfig tiny_model_config(int64_t vocab_size = 257) {
  ModelConfig config;
  config.vocab_size = vocab_size;
  config.d_model = 12;
  config.n_layers = 2;
  config.max_seq_len = 24;
  config.attention.head_dim = 4;
  config.attention.n_experts = 3;
  config.attention.heads_per_expert = 2;
  config.attention.router.d_hidden = 5;
  config.ffn.n_experts = 5;
  config.ffn.d_expert = 3;
  config.ffn.router.d_hidden = 5;
  return config;
}

}  // namespace dsmoe
