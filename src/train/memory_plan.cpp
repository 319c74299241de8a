#include "train/memory_plan.h"

#include <algorithm>
#include <cmath>

#include "model/parameter_count.h"

namespace dsmoe {
namespace {

constexpr double kFloat32 = 4.0;
constexpr double kBfloat16 = 2.0;
constexpr double kNormStatistics = 2.0 * kFloat32;  // mean and scale of one token
constexpr double kLossChunk = 4 << 20;              // logits that the loss holds at once
constexpr double kLossChunkTokens = 256;            // or more, for this many tokens
// Estimates for a CPU with AVX512-BF16; other CPUs differ. A process has 36 to 49 MiB beside its
// tensors' blocks. oneDNN compiles each product of selected experts for every number of rows; on
// CPUs without AVX512 it compiles none.
constexpr double kRuntime = 45 << 20;
constexpr double kProductCode = 0.34 * (1 << 20);
constexpr double kProductCodeBfloat16 = 0.56 * (1 << 20);

// Logits, probabilities and weights in float32, the selection in bytes, and the inputs of the
// hidden layer's activation.
double router_bytes(const RouterConfig& router, int64_t n_experts, double bytes_per_value) {
  return (3.0 * kFloat32 + 1.0) * static_cast<double>(n_experts) +
         bytes_per_value * static_cast<double>(router.hidden_rows());
}

// A half's input: the float32 stream that its norm read, and the output of the norm or of the half
// before.
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
  double bytes = input_bytes(config, bytes_per_value) + kNormStatistics;
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
  return static_cast<double>(n_inputs(ffn.activation));
}

// Returns the experts per token that training computes separately; 0 if it computes all of them in
// one wide product. The selection of a threshold is not known beforehand: takes its maximum.
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
  double bytes = input_bytes(config, bytes_per_value) + kNormStatistics;
  if (n_rows > 0) {
    // Each row's input, the activation's input and result, the weight and both indices; its output
    // in float32, which the sum over rows keeps.
    const auto d_model = static_cast<double>(config.d_model);
    const double values = d_model + (n_inputs + 1.0) * static_cast<double>(ffn.d_expert);
    bytes +=
        n_rows * (values * bytes_per_value + kFloat32 * (d_model + 1.0) + 2.0 * sizeof(int64_t));
  } else {
    // The activation's input; its result is computed again.
    bytes += n_inputs * ffn_width(ffn) * bytes_per_value;
  }
  if (ffn.kind != FfnKind::kDense) {
    bytes += router_bytes(ffn.router, ffn.n_experts, bytes_per_value);
  }
  return bytes;
}

// Bytes of one token in the backward pass of the last block's FFN.
double ffn_workspace(const ModelConfig& config, double bytes_per_value) {
  const auto d_model = static_cast<double>(config.d_model);
  // The features, which the step's output holds, and the gradient of the stream, in the compute
  // dtype too.
  double bytes = d_model * (kFloat32 + bytes_per_value);
  if (bytes_per_value != kFloat32) bytes += d_model * bytes_per_value;
  // The gradients of the sum over rows and of each row, in float32.
  const double n_rows = sparse_rows(config);
  if (n_rows > 0) return bytes + kFloat32 * d_model * (n_rows + 1.0);
  // The activation's result, computed again, and the gradients of its inputs.
  return bytes + (1.0 + n_activation_inputs(config.ffn)) * ffn_width(config.ffn) * bytes_per_value;
}

// Bytes of the gradient of an FFN's last matrix.
double matrix_gradient(const ModelConfig& config, double bytes_per_value) {
  return bytes_per_value * static_cast<double>(config.d_model) * ffn_width(config.ffn);
}

// Returns the bytes per token of routing data that losses and measurements read when blocks are
// recomputed.
double record_bytes(const ModelConfig& config) {
  double n_experts = 0;
  if (config.ffn.kind != FfnKind::kDense) n_experts += static_cast<double>(config.ffn.n_experts);
  if (config.attention.kind == AttentionKind::kMoa) {
    n_experts += static_cast<double>(config.attention.n_experts);
  }
  return n_experts * (2.0 * kFloat32 + 1.0);
}

void add_activations(TrainingMemory& memory, const RunConfig& config, double bytes_per_value) {
  const auto& model = config.model;
  const auto n_tokens = static_cast<double>(config.train.batch_size * config.seq_len());
  const auto n_layers = static_cast<double>(model.n_layers);
  const auto d_model = static_cast<double>(model.d_model);
  const auto block = activation_bytes_per_token(model, bytes_per_value);
  memory.activations = n_tokens * n_layers * (block.attention + block.ffn);
  // An attention that is computed again keeps the last half's output not yet added; the sum before
  // it is the one that the last FFN's norm keeps, of the first block the embedding.
  memory.activations_selective =
      n_tokens *
      (n_layers * block.ffn + (n_layers - 1.0) * bytes_per_value * d_model + kFloat32 * d_model);
  memory.activations_checkpointed =
      n_tokens * (n_layers * (input_bytes(model, bytes_per_value) + record_bytes(model)) +
                  block.attention + block.ffn);
  memory.workspace =
      n_tokens * ffn_workspace(model, bytes_per_value) + matrix_gradient(model, bytes_per_value);
}

// Numbers of rows up to n that grouped_linear's products are compiled for.
double n_product_sizes(double n) { return n <= 128 ? n / 16 : 8 + 4 * std::log2(n / 128); }

// Returns the bytes of the six products, forward and backward, of selected experts, compiled for
// the row counts of unequally loaded experts: a quarter to four times the mean.
double product_code(const RunConfig& config, bool narrow) {
  const double n_rows = sparse_rows(config.model);
  if (n_rows == 0) return 0.0;
  const auto n_tokens = static_cast<double>(config.train.batch_size * config.seq_len());
  const double mean = n_tokens * n_rows / static_cast<double>(config.model.ffn.n_experts);
  const double n_sizes =
      1 + n_product_sizes(std::min(4 * mean, n_tokens)) - n_product_sizes(mean / 4);
  return 6 * n_sizes * (narrow ? kProductCodeBfloat16 : kProductCode);
}

// Copies of matrices in the compute dtype; in float32 only the two hidden matrices of SwiGLU
// routers, which are multiplied as one.
double compute_copies(const ModelConfig& model, const ParameterCount& count, bool narrow) {
  const auto d_model = static_cast<double>(model.d_model);
  if (narrow) {
    const double head = static_cast<double>(model.vocab_size) * d_model;
    return kBfloat16 * (static_cast<double>(count.matrices + count.routers) + head);
  }
  double width = 0;
  const auto add = [&](const RouterConfig& router) {
    if (router.hidden_rows() > router.d_hidden) width += static_cast<double>(router.hidden_rows());
  };
  if (model.ffn.kind != FfnKind::kDense) add(model.ffn.router);
  if (model.attention.kind == AttentionKind::kMoa) add(model.attention.router);
  return kFloat32 * static_cast<double>(model.n_layers) * width * d_model;
}

void add_reduction_buffers(TrainingMemory& memory, const RunConfig& config, int64_t n_ranks) {
  if (n_ranks == 1) return;
  memory.communication = memory.gradients;
  if (!config.distributed.shard_optimizer) return;
  // A window of this rank twice, and of all ranks three times: to send, to receive, to copy from.
  memory.exchange = static_cast<double>(kExchangeBytes * (3 * n_ranks + 2));
}

double kept_activations(const TrainingMemory& memory, Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return memory.activations;
    case Recompute::kAttention:
      return memory.activations_selective;
    case Recompute::kBlock:
      return memory.activations_checkpointed;
  }
  return memory.activations;
}

// Bytes of a step besides the permanent ones: the peak, and the sum of all its blocks.
struct StepBytes {
  double most = 0;
  double blocks = 0;
};

StepBytes step_bytes(const TrainingMemory& memory, const RunConfig& config, int64_t n_ranks) {
  const auto& model = config.model;
  const double bytes_per_value =
      config.train.compute_dtype == ComputeDtype::kFloat32 ? kFloat32 : kBfloat16;
  const auto n_tokens = static_cast<double>(config.train.batch_size * config.seq_len());
  const auto n_layers = static_cast<double>(model.n_layers);
  const auto recompute = config.train.checkpoint_activations;
  const double kept = kept_activations(memory, recompute);
  // Gradients of an earlier micro-batch are there when the next forward pass ends; those of a
  // single one grow while activations go, on several ranks inside the buckets.
  const bool has_earlier = config.train.accumulation > n_ranks;
  const double earlier = has_earlier ? memory.gradients : 0.0;
  const double late = has_earlier || n_ranks > 1 ? 0.0 : memory.gradients;
  const double block = memory.activations / n_layers;
  StepBytes step;
  // The loss is done before the last block's backward pass begins. In the first block's the
  // gradients of the others are there.
  step.most = std::max(earlier + kept + std::max(memory.loss, memory.workspace),
                       late * (n_layers - 1.0) / n_layers + block + memory.workspace);
  step.most = std::max(step.most, late + memory.exchange);
  // A freed block waits for a tensor of its own size: parts that are not there at one time do not
  // share their blocks. The head's gradient and that of a matrix are counted twice.
  step.blocks = earlier + kept + memory.loss + memory.workspace + memory.exchange + late;
  if (late > 0) {
    step.blocks -= kFloat32 * static_cast<double>(model.vocab_size * model.d_model) +
                   matrix_gradient(model, bytes_per_value);
  }
  if (recompute == Recompute::kAttention) {
    step.blocks +=
        n_tokens * (attention_bytes(model, bytes_per_value) - input_bytes(model, bytes_per_value));
  }
  // Gradients of each row's input and of the activation's input and output.
  const auto row_values = static_cast<double>(model.d_model + 2 * model.ffn.d_expert);
  step.blocks += n_tokens * sparse_rows(model) * row_values * bytes_per_value;
  return step;
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
  memory.compute_weights = compute_copies(model, count, narrow);
  add_reduction_buffers(memory, config, n_ranks);
  add_activations(memory, config, bytes_per_value);
  const double chunk =
      std::min(n_tokens, std::max(kLossChunkTokens, kLossChunk / vocab_size)) * vocab_size;
  memory.loss = n_tokens * (input_bytes(model, bytes_per_value) +
                            bytes_per_value * static_cast<double>(model.d_model)) +
                bytes_per_value * chunk + kFloat32 * head;

  const double state = memory.weights + memory.optimizer + memory.communication;
  const auto step = step_bytes(memory, config, n_ranks);
  // Before the first step the buckets are laid out a second time.
  memory.tensors = state + std::max(memory.compute_weights + step.most, memory.communication);
  memory.heap = std::max(0.0, state + memory.compute_weights + step.blocks - memory.tensors);
  memory.runtime = kRuntime + product_code(config, narrow);
  memory.peak = memory.tensors + memory.heap + memory.runtime;
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
