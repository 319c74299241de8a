#include "train/memory_plan.h"

#include <catch2/catch.hpp>

#include "model/parameter_count.h"
#include "report/small_config.h"

namespace dsmoe {
namespace {

TEST_CASE("training_memory: counts float32 weights, gradients and two moments", "[report]") {
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

TEST_CASE("activation_bytes_per_token: equals the calculation by hand", "[report]") {
  auto model = small_config().model;
  // Stream 4 and normed 2 bytes of 10 values; 6 query heads and 2 key heads of 4, twice, in two
  // bytes; a number a head; 13 bytes an expert; mean and scale of the norm.
  CHECK(activation_bytes_per_token(model, 2).attention ==
        10 * 6 + 8 + 2 * 2 * 4 * (6 + 2) + 4 * 6 + 13 * 3);
  CHECK(activation_bytes_per_token(model, 2).ffn == 10 * 6 + 8 + 2 * 40 + 13 * 8);
  model.ffn.activation = Activation::kSwiglu;
  model.ffn.router = {.kind = RouterKind::kSwiglu, .d_hidden = 7};
  CHECK(activation_bytes_per_token(model, 4).ffn == 10 * 8 + 8 + 4 * 2 * 40 + 7 * 2 * 4 + 13 * 8);
  model.ffn.kind = FfnKind::kDense;
  model.ffn.d_ffn = 30;
  CHECK(activation_bytes_per_token(model, 4).ffn == 10 * 8 + 8 + 4 * 2 * 30);
  model.attention.kind = AttentionKind::kDense;
  model.attention.n_heads = 4;
  model.attention.n_kv_heads = 1;
  CHECK(activation_bytes_per_token(model, 2).attention == 10 * 6 + 8 + 2 * 2 * 4 * (4 + 1) + 4 * 4);
}

TEST_CASE("activation_bytes_per_token: selected experts keep their rows", "[report]") {
  auto model = small_config().model;
  const double always = 10 * 6 + 8 + 13 * 8;  // input, norm and router
  // Per expert: its input, the activation's input and result; the weight, two indices; its output
  // in float32.
  const double row = 2 * (10 + 2 * 5) + 4 + 2 * 8 + 4 * 10;
  model.training_policy = "moe:top_k=3;moa:all";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 3 * row);
  model.training_policy = "moe:threshold=0.5,max=2;moa:all";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 2 * row);
  model.training_policy = "moe:threshold=0.5;moa:all";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 8 * row);
  model.training_policy = "moe:all;moa:top_k=1";
  CHECK(activation_bytes_per_token(model, 2).ffn == always + 2 * 40);
}

TEST_CASE("training_memory: recomputed activations are kept for one block only", "[report]") {
  auto config = small_config();
  const double n_tokens = 3 * 20;
  const auto memory = training_memory(config, 1);
  const auto block = activation_bytes_per_token(config.model, 2);
  CHECK(memory.activations == n_tokens * 2 * (block.attention + block.ffn));
  // The embedding in float32, the output of the second block's attention input not yet added.
  CHECK(memory.activations_selective == n_tokens * (2 * block.ffn + 10 * 4 + 10 * 2));
  // Logits, probabilities and selection of 8 and 3 experts.
  CHECK(memory.activations_checkpointed ==
        n_tokens * (2 * (10 * 6 + 9 * 11) + block.attention + block.ffn));
  const double without = memory.tensors;
  config.train.checkpoint_activations = Recompute::kAttention;
  CHECK(without - training_memory(config, 1).tensors ==
        Approx(memory.activations - memory.activations_selective));
  config.train.checkpoint_activations = Recompute::kBlock;
  CHECK(without - training_memory(config, 1).tensors ==
        Approx(memory.activations - memory.activations_checkpointed));
}

TEST_CASE("training_memory: in float32 a router's two hidden matrices are copied into one",
          "[report]") {
  auto config = small_config();
  config.train.compute_dtype = ComputeDtype::kFloat32;
  CHECK(training_memory(config, 1).compute_weights == 0);
  config.model.ffn.router = {.kind = RouterKind::kSwiglu, .d_hidden = 7};
  CHECK(training_memory(config, 1).compute_weights == 2 * 4 * 2 * 7 * 10);
}

TEST_CASE("training_memory: tensors are the sum of those alive at one time", "[report]") {
  auto config = small_config();
  config.train.accumulation = 1;
  const auto memory = training_memory(config, 1);
  CHECK(memory.loss > memory.workspace);  // a vocabulary of 100 over a width of 10
  const double always = memory.weights + memory.optimizer + memory.compute_weights;
  CHECK(memory.tensors == Approx(always + memory.activations + memory.loss));
  // Gradients are allocated after activations are freed: they use other blocks.
  const double counted_twice = 4 * 100 * 10 + 2 * 10 * 40;  // of the head and of an FFN's matrix
  CHECK(memory.heap == Approx(memory.workspace + memory.gradients - counted_twice));
  CHECK(memory.peak == Approx(memory.tensors + memory.heap + memory.runtime));
  config.train.accumulation = 2;
  const auto several = training_memory(config, 1);
  CHECK(several.tensors == Approx(always + memory.gradients + memory.activations + memory.loss));
  CHECK(several.heap == Approx(memory.workspace));
  // With few tokens the gradients dominate: all of them, when no activation is left.
  config.model.d_model = 1000;
  config.train.accumulation = config.train.batch_size = config.data.seq_len = 1;
  const auto few = training_memory(config, 1);
  CHECK(few.tensors == Approx(few.weights + few.optimizer + few.compute_weights + few.gradients));
}

TEST_CASE("training_memory: ranks keep gradients in buckets, two sets before the first step",
          "[report]") {
  auto config = small_config();
  config.train.accumulation = 2;
  const auto memory = training_memory(config, 2);
  const double always = memory.weights + memory.optimizer + memory.communication;
  CHECK(memory.tensors ==
        Approx(always + memory.compute_weights + memory.activations + memory.loss));
  CHECK(memory.heap == Approx(memory.workspace));
  // With almost no tokens the second buckets dominate.
  config.model.d_model = 1000;
  config.train.batch_size = 1;
  config.data.seq_len = 1;
  const auto few = training_memory(config, 2);
  CHECK(few.tensors == Approx(few.weights + few.optimizer + 2 * few.communication));
  config.distributed.shard_optimizer = true;
  const auto sharded = training_memory(config, 2);
  CHECK(sharded.optimizer == few.optimizer / 2);
  CHECK(sharded.exchange == 8 << 20);
  // All blocks: a freed block serves no tensor of another size.
  CHECK(sharded.heap + sharded.tensors ==
        Approx(few.weights + few.optimizer / 2 + few.communication + few.compute_weights +
               few.activations + few.loss + few.workspace + sharded.exchange));
}

TEST_CASE("kv_cache_bytes_per_token: counts shared keys and values under any routing", "[report]") {
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
