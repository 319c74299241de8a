#include "report/memory_plan.h"

#include <catch2/catch.hpp>

#include "model/parameter_count.h"
#include "report/small_config.h"

namespace dsmoe {
namespace {

TEST_CASE("training_memory: float32 weights, gradients and two moments", "[report]") {
  const auto config = small_config();
  const auto total = static_cast<double>(count_parameters(config.model).total());
  const auto memory = training_memory(config, 1);
  CHECK(memory.weights == 4 * total);
  CHECK(memory.gradients == 4 * total);
  CHECK(memory.optimizer == 8 * total);
  CHECK(memory.snapshot == 12 * total);
  CHECK(memory.communication == 0);
  CHECK(training_memory(config, 2).communication == 4 * total);
}

TEST_CASE("activation_bytes_per_token: worked by hand", "[report]") {
  auto model = small_config().model;
  // Stream 4 and normed 2 bytes of 10 values; 6 query heads and 2 key heads of 4, twice, in two
  // bytes; a number a head; 13 bytes an expert.
  CHECK(activation_bytes_per_token(model, 2).attention ==
        10 * 6 + 2 * 2 * 4 * (6 + 2) + 4 * 6 + 13 * 3);
  CHECK(activation_bytes_per_token(model, 2).ffn == 10 * 6 + 2 * 40 + 13 * 8);
  model.ffn.activation = FfnActivation::kSwiglu;
  model.ffn.router = {.kind = RouterKind::kSwiglu, .d_hidden = 7};
  CHECK(activation_bytes_per_token(model, 4).ffn == 10 * 8 + 4 * 2 * 40 + 7 * 2 * 4 + 13 * 8);
  model.ffn.kind = FfnKind::kDense;
  model.ffn.d_ffn = 30;
  CHECK(activation_bytes_per_token(model, 4).ffn == 10 * 8 + 4 * 2 * 30);
  model.attention.kind = AttentionKind::kDense;
  model.attention.n_heads = 4;
  model.attention.n_kv_heads = 1;
  CHECK(activation_bytes_per_token(model, 2).attention == 10 * 6 + 2 * 2 * 4 * (4 + 1) + 4 * 4);
}

TEST_CASE("activation_bytes_per_token: selected experts keep their rows", "[report]") {
  auto model = small_config().model;
  const double always = 10 * 6 + 13 * 8;  // input and router
  // Per expert: its input, what enters the activation, its result; the weight, two indices.
  const double row = 2 * (10 + 2 * 5) + 4 + 2 * 8;
  model.training_policy = "moe:top_k=3;moa:all";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 3 * row);
  model.training_policy = "moe:threshold=0.5,max=2;moa:all";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 2 * row);
  model.training_policy = "moe:threshold=0.5;moa:all";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 8 * row);
  model.training_policy = "moe:all;moa:top_k=1";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 2 * 40);
}

TEST_CASE("training_memory: what is computed again is kept for one block only", "[report]") {
  auto config = small_config();
  const double n_tokens = 3 * 20;
  const auto memory = training_memory(config, 1);
  const auto block = activation_bytes_per_token(config.model, 2);
  CHECK(memory.activations == n_tokens * 2 * (block.attention + block.ffn));
  CHECK(memory.activations_selective == n_tokens * (2 * (10 * 6 + block.ffn) + block.attention));
  CHECK(memory.activations_checkpointed == n_tokens * (2 * 10 * 6 + block.attention + block.ffn));
  const double without = memory.peak;
  config.train.checkpoint_activations = Recompute::kAttention;
  CHECK(without - training_memory(config, 1).peak ==
        Approx(memory.activations - memory.activations_selective));
  config.train.checkpoint_activations = Recompute::kBlock;
  CHECK(without - training_memory(config, 1).peak ==
        Approx(memory.activations - memory.activations_checkpointed));
}

TEST_CASE("training_memory: the peak is the sum of what is there at one time", "[report]") {
  auto config = small_config();
  config.train.accumulation = 1;
  const auto memory = training_memory(config, 1);
  CHECK(memory.loss > memory.workspace);  // a vocabulary of 100 over a width of 10
  const double always =
      memory.weights + memory.optimizer + memory.compute_weights + memory.runtime + memory.heap;
  CHECK(memory.peak == Approx(always + memory.activations + memory.loss));
  config.train.accumulation = 2;
  CHECK(training_memory(config, 1).peak ==
        Approx(always + memory.gradients + memory.activations + memory.loss));
}

TEST_CASE("kv_cache_bytes_per_token: shared keys and values, whatever the routing", "[report]") {
  auto model = small_config().model;
  CHECK(kv_cache_bytes_per_token(model, 2) == 2 * 2 * 2 * 4 * 2);
  model.attention.n_experts = 7;
  CHECK(kv_cache_bytes_per_token(model, 2) == 2 * 2 * 2 * 4 * 2);
  model.attention.kind = AttentionKind::kDense;
  model.attention.n_kv_heads = 4;
  CHECK(kv_cache_bytes_per_token(model, 4) == 2 * 2 * 4 * 4 * 4);
}

}  // namespace
}  // namespace dsmoe
