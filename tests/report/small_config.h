#pragma once

#include "train/train_config.h"

namespace dsmoe {

/// Two layers of round sizes, so that a plan can be calculated by hand.
inline RunConfig small_config() {
  RunConfig config;
  config.run_dir = "run";
  config.data.train = {"shards"};
  auto& model = config.model;
  model.vocab_size = 100;
  model.d_model = 10;
  model.n_layers = 2;
  model.max_seq_len = 20;
  model.attention.head_dim = 4;
  model.attention.n_experts = 3;
  model.attention.heads_per_expert = 2;
  model.attention.router.kind = RouterKind::kLinear;
  model.ffn.n_experts = 8;
  model.ffn.d_expert = 5;
  model.ffn.router.kind = RouterKind::kLinear;
  config.train.batch_size = 3;
  config.train.accumulation = 4;
  config.train.compute_dtype = ComputeDtype::kBfloat16;
  return config;
}

}  // namespace dsmoe
