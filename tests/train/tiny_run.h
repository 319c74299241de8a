#pragma once

#include <string>

#include "common/io.h"
#include "data/tokenize.h"
#include "support/temporary_directory.h"
#include "train/train_config.h"

namespace dsmoe {

/// Token shards of a small text, made in a temporary directory; 1,500 bytes are 92 sequences of 16.
inline std::string make_tiny_shards(const TemporaryDirectory& directory, size_t n_bytes = 1500) {
  std::string text;
  for (size_t i = 0; text.size() < n_bytes; ++i) {
    text += "line " + std::to_string(i * i % 97) + " of a small text\n";
  }
  text.resize(n_bytes);
  write_file(posix_io(), directory.file("text.txt"), text);
  TokenizeOptions options;
  options.inputs = {directory.file("text.txt")};
  options.out = directory.file("shards");
  tokenize_files(posix_io(), options);
  return options.out;
}

/// A run of a few thousand parameters with everything that has a state switched on: dropout,
/// accumulation, warm-up and decay, both kinds of experts, more than one epoch of 92 sequences.
inline RunConfig tiny_run(const std::string& run_dir, const std::string& shards) {
  RunConfig config;
  config.run_dir = run_dir;
  config.seed = 3;
  config.threads = 1;
  config.model.vocab_size = 257;
  config.model.d_model = 12;
  config.model.n_layers = 2;
  config.model.max_seq_len = 16;
  config.model.dropout = 0.1;
  config.model.attention.head_dim = 4;
  config.model.attention.n_experts = 3;
  config.model.attention.heads_per_expert = 2;
  config.model.attention.router.d_hidden = 6;
  config.model.ffn.n_experts = 4;
  config.model.ffn.d_expert = 5;
  config.model.ffn.router.d_hidden = 6;
  config.data.train = {shards};
  config.data.seq_len = 16;
  config.train.steps = 40;
  config.train.batch_size = 2;
  config.train.accumulation = 2;
  config.train.compute_dtype = ComputeDtype::kFloat32;
  config.train.log_every = 1;
  config.train.validate_every = 0;
  config.train.save_every = 20;
  config.train.keep_checkpoints = 10;
  config.train.schedule.peak = 1e-2;
  config.train.schedule.warmup_steps = 5;
  return config;
}

}  // namespace dsmoe
