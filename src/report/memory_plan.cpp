#include "report/memory_plan.h"

#include <algorithm>
#include <cmath>

#include "model/parameter_count.h"

namespace dsmoe {
namespace {

constexpr double kFloat32 = 4.0;
constexpr double kBfloat16 = 2.0;
constexpr double kLossChunk = 4 << 20;    // logits that the loss holds at once
constexpr double kLossChunkTokens = 256;  // or more, for this many tokens
// Both measured at the small configs on CPU, as tests/integration/plan_test.py does: a model of
// next to nothing takes 42 to 49 MiB, the others what is here, within 8 %, for their blocks of
// changing size.
constexpr double kRuntime = 45 << 20;
constexpr double kHeapOfWorkspace = 0.7;
// Code of one product of selected experts at one number of rows, measured in the same way.
constexpr double kProductCode = 0.34 * (1 << 20);
constexpr double kProductCodeBfloat16 = 0.56 * (1 << 20);

// Logits, probabilities and weights in float32, the selection in bytes, and both inputs of the
// swiglu form's activation.
double router_bytes(const RouterConfig& router, int64_t n_experts, double bytes_per_value) {
  const double hidden = router.kind == RouterKind::kSwiglu
                            ? 2.0 * bytes_per_value * static_cast<double>(router.d_hidden)
                            : 0.0;
  return (3.0 * kFloat32 + 1.0) * static_cast<double>(n_experts) + hidden;
}

// A half's input: the float32 stream that its norm saw, and the normed values.
double input_bytes(const ModelConfig& config, double bytes_per_value) {
  return static_cast<double>(config.d_model) * (kFloat32 + bytes_per_value);
}

double attention_bytes(const ModelConfig& config, double bytes_per_value) {
  const auto& attention = config.attention;
  const bool moa = attention.kind == AttentionKind::kMoa;
  const auto n_heads = static_cast<double>(moa ? attention.n_experts * attention.heads_per_expert
                                               : attention.n_heads);
  const auto n_kv_heads =
      static_cast<double>(moa ? attention.heads_per_expert : attention.n_kv_heads);
  const auto head_dim = static_cast<double>(attention.head_dim);
  double bytes = input_bytes(config, bytes_per_value);
  // Queries and answers of every head, keys and values; the softmax keeps one number a head.
  bytes += 2.0 * head_dim * bytes_per_value * (n_heads + n_kv_heads) + kFloat32 * n_heads;
  // The inputs of the norms of queries and keys, widened.
  if (attention.qk_norm) bytes += head_dim * kFloat32 * (n_heads + n_kv_heads);
  if (moa) bytes += router_bytes(attention.router, attention.n_experts, bytes_per_value);
  return bytes;
}

double ffn_width(const FfnConfig& ffn) {
  return static_cast<double>(ffn.kind == FfnKind::kMoe ? ffn.n_experts * ffn.d_expert : ffn.d_ffn);
}

double n_activation_inputs(const FfnConfig& ffn) {
  return ffn.activation == FfnActivation::kSwiglu ? 2.0 : 1.0;
}

// Experts of a token that training computes for themselves; 0 where it computes all of them wide.
// What a threshold selects is not known beforehand: as many as it may.
double sparse_rows(const ModelConfig& config) {
  if (!config.has_ffn_experts()) return 0.0;
  const auto policy = training_plan(config).layer(0).moe;
  if (policy.execution != Execution::kSparse) return 0.0;
  const int64_t limit = policy.selection == Selection::kTopK ? policy.k : policy.max_experts;
  return static_cast<double>(limit > 0 ? limit : config.ffn.n_experts);
}

double ffn_bytes(const ModelConfig& config, double bytes_per_value) {
  const auto& ffn = config.ffn;
  const double n_inputs = n_activation_inputs(ffn);
  const double n_rows = sparse_rows(config);
  double bytes = input_bytes(config, bytes_per_value);
  if (n_rows > 0) {
    // Each row's input, what enters the activation, its result, the weight and both indices.
    const double values =
        static_cast<double>(config.d_model) + (n_inputs + 1.0) * static_cast<double>(ffn.d_expert);
    bytes += n_rows * (values * bytes_per_value + kFloat32 + 2.0 * sizeof(int64_t));
  } else {
    // What enters the activation; its result is computed again.
    bytes += n_inputs * ffn_width(ffn) * bytes_per_value;
  }
  if (ffn.kind != FfnKind::kDense) {
    bytes += router_bytes(ffn.router, ffn.n_experts, bytes_per_value);
  }
  return bytes;
}

// Of one token, in the backward pass.
double ffn_workspace(const ModelConfig& config, double bytes_per_value) {
  const double n_rows = sparse_rows(config);
  const double width =
      n_rows > 0 ? n_rows * static_cast<double>(config.ffn.d_expert) : ffn_width(config.ffn);
  // The activation's result, its gradient and those of its inputs; of each row the gradients of its
  // output, in float32 too, and of its input.
  return (2.0 + n_activation_inputs(config.ffn)) * width * bytes_per_value +
         n_rows * static_cast<double>(config.d_model) * (kFloat32 + 2.0 * bytes_per_value);
}

void add_activations(TrainingMemory& memory, const RunConfig& config, double bytes_per_value) {
  const auto& model = config.model;
  const auto n_tokens = static_cast<double>(config.train.batch_size * config.seq_len());
  const auto n_layers = static_cast<double>(model.n_layers);
  const auto block = activation_bytes_per_token(model, bytes_per_value);
  // What a half that is computed again keeps: the sum, and the last half's output not yet added.
  const double stream = input_bytes(model, bytes_per_value);
  memory.activations = n_tokens * n_layers * (block.attention + block.ffn);
  memory.activations_selective = n_tokens * (n_layers * (stream + block.ffn) + block.attention);
  memory.activations_checkpointed = n_tokens * (n_layers * stream + block.attention + block.ffn);
  // Two gradients of the stream beside the FFN's.
  memory.workspace = n_tokens * (ffn_workspace(model, bytes_per_value) +
                                 2.0 * kFloat32 * static_cast<double>(model.d_model));
}

// Numbers of rows up to n that grouped_linear's products are compiled for.
double n_product_sizes(double n) { return n <= 128 ? n / 16 : 8 + 4 * std::log2(n / 128); }

// The six products, forward and backward, of selected experts, compiled for every number of rows
// that experts of unequal load meet: a quarter to four times the mean.
double product_code(const RunConfig& config, bool narrow) {
  const double n_rows = sparse_rows(config.model);
  if (n_rows == 0) return 0.0;
  const auto n_tokens = static_cast<double>(config.train.batch_size * config.seq_len());
  const double mean = n_tokens * n_rows / static_cast<double>(config.model.ffn.n_experts);
  const double n_sizes =
      1 + n_product_sizes(std::min(4 * mean, n_tokens)) - n_product_sizes(mean / 4);
  return 6 * n_sizes * (narrow ? kProductCodeBfloat16 : kProductCode);
}

// Buckets of all gradients, and what the ranks exchange of updated parameters at a time.
double communication_bytes(const RunConfig& config, int64_t n_ranks, double gradients) {
  if (n_ranks == 1) return 0.0;
  const double window = config.distributed.shard_optimizer
                            ? static_cast<double>(kExchangeBytes * (n_ranks + 1))
                            : 0.0;
  return gradients + window;
}

}  // namespace

ActivationBytes activation_bytes_per_token(const ModelConfig& config, double bytes_per_value) {
  return {attention_bytes(config, bytes_per_value), ffn_bytes(config, bytes_per_value)};
}

TrainingMemory training_memory(const RunConfig& config, int64_t n_ranks) {
  const auto& model = config.model;
  const auto count = count_parameters(model);
  const auto total = static_cast<double>(count.total());
  const bool narrow = config.train.compute_dtype != ComputeDtype::kFloat32;
  const double bytes_per_value = narrow ? kBfloat16 : kFloat32;
  const auto n_tokens = static_cast<double>(config.train.batch_size * config.seq_len());
  const auto vocab_size = static_cast<double>(model.vocab_size);
  const double head = vocab_size * static_cast<double>(model.d_model);

  TrainingMemory memory;
  memory.weights = memory.gradients = kFloat32 * total;
  const double moments = 2.0 * kFloat32 * total;
  memory.optimizer =
      config.distributed.shard_optimizer ? moments / static_cast<double>(n_ranks) : moments;
  memory.snapshot = memory.weights + moments;
  memory.communication = communication_bytes(config, n_ranks, kFloat32 * total);
  if (narrow) {
    memory.compute_weights =
        kBfloat16 * (static_cast<double>(count.matrices + count.routers) + head);
  }
  add_activations(memory, config, bytes_per_value);
  const double chunk =
      std::min(n_tokens, std::max(kLossChunkTokens, kLossChunk / vocab_size)) * vocab_size;
  memory.loss = n_tokens * (input_bytes(model, bytes_per_value) +
                            bytes_per_value * static_cast<double>(model.d_model)) +
                bytes_per_value * chunk + kFloat32 * head;

  const double kept = config.train.checkpoint_activations == Recompute::kNone ? memory.activations
                      : config.train.checkpoint_activations == Recompute::kBlock
                          ? memory.activations_checkpointed
                          : memory.activations_selective;
  const double persistent =
      memory.weights + memory.optimizer + memory.compute_weights + memory.communication;
  // Gradients of an earlier micro-batch are there when the next forward pass ends; those of a
  // single one grow while activations go.
  const bool keeps_gradients = config.train.accumulation > n_ranks;
  // The loss is done before the first block's backward pass begins.
  const double forward_end = kept + std::max(memory.loss, memory.workspace);
  memory.runtime = kRuntime + product_code(config, narrow);
  memory.heap = kHeapOfWorkspace * memory.workspace;
  memory.peak =
      persistent + memory.runtime + memory.heap +
      (keeps_gradients ? memory.gradients + forward_end : std::max(forward_end, memory.gradients));
  return memory;
}

double kv_cache_bytes_per_token(const ModelConfig& config, double bytes_per_value) {
  const auto& attention = config.attention;
  const int64_t n_kv_heads =
      attention.kind == AttentionKind::kMoa ? attention.heads_per_expert : attention.n_kv_heads;
  return 2.0 * static_cast<double>(config.n_layers * n_kv_heads * attention.head_dim) *
         bytes_per_value;
}

}  // namespace dsmoe
