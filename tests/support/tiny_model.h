#pragma once

#include <cstdint>

#include "model/transformer.h"
#include "support/tiny_model_config.h"

namespace dsmoe {

/// A model of odd sizes with experts of both kinds over the byte tokenizer's ids. Its weights are
/// drawn wide, so that logits and routers differ clearly from token to token.
inline Transformer make_tiny_model(uint64_t seed = 1, double std = 0.4, int64_t vocab_size = 257) {
  const auto config = tiny_model_config(vocab_size);
  Transformer model(config);
  init_weights(model, seed, std);
  return model;
}

}  // namespace dsmoe
