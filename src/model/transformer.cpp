#include "model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "common/error.h"
#include "model/activation_checkpoint.h"

namespace dsmoe {
namespace {

using BlockFunction = std::function<BlockOutput(const ResidualStream&)>;

// The stream, then three tensors a record; an undefined record is three empty tensors.
std::vector<at::Tensor> to_list(const BlockOutput& output) {
  std::vector<at::Tensor> list{output.stream.sum, output.stream.pending};
  for (const auto* record : {&output.moa, &output.moe}) {
    for (const auto* tensor : {&record->router_logits, &record->router_probs, &record->selected}) {
      list.push_back(tensor->defined()
                         ? *tensor
                         : at::empty({0}, output.stream.sum.options().dtype(at::kBool)));
    }
  }
  return list;
}

BlockOutput to_output(const std::vector<at::Tensor>& list) {
  const auto record = [&](size_t at) {
    return list[at].numel() == 0 ? RoutingRecord{}
                                 : RoutingRecord{list[at], list[at + 1], list[at + 2]};
  };
  return {{list[0], list[1]}, record(2), record(5)};
}

// Keeps only the stream; the backward pass runs the function again.
BlockOutput run_recomputed(BlockFunction function, const ResidualStream& stream) {
  if (!stream.sum.requires_grad()) return function(stream);
  return to_output(checkpoint_activations(
      [function = std::move(function)](const at::Tensor& sum, const at::Tensor& pending) {
        return to_list(function({sum, pending}));
      },
      stream.sum,
      stream.pending));
}

// The first key that each token may see: the first of its document.
at::Tensor first_keys_of(const ForwardOptions& options,
                         const at::Tensor& tokens,
                         const at::Tensor& positions) {
  if (!options.document_positions.defined()) return {};
  TORCH_CHECK(options.cache == nullptr && options.document_positions.sizes() == tokens.sizes() &&
                  options.document_positions.scalar_type() == at::kLong,
              "Transformer: expected document positions ",
              tokens.sizes(),
              " int64 and no cache, got ",
              options.document_positions.sizes());
  const auto first_keys = positions - options.document_positions;
  // On another device this check would be a host sync.
  TORCH_CHECK(!tokens.is_cpu() || tokens.numel() == 0 ||
                  (first_keys.min().item<int64_t>() >= 0 &&
                   options.document_positions.min().item<int64_t>() >= 0),
              "Transformer: expected document positions from 0 up to that in the sequence");
  return first_keys;
}

// The positions of the tokens in their sequences, [batch, seq].
at::Tensor begin_cached_pass(const ForwardOptions& options, const at::Tensor& tokens) {
  auto& cache = *options.cache;
  if (options.segments.empty()) {
    cache.begin_pass(tokens.size(1));
  } else {
    cache.begin_pass(options.segments);
  }
  TORCH_CHECK(static_cast<int64_t>(cache.positions().size()) == tokens.numel() &&
                  (options.segments.empty() || tokens.size(0) == 1),
              "Transformer: expected the tokens of ",
              cache.positions().size(),
              " places in the cache, got ",
              tokens.sizes());
  if (options.cached_positions.defined()) return options.cached_positions;
  return at::tensor(cache.positions(), at::kLong).view(tokens.sizes()).to(tokens.device());
}

at::Tensor narrow_embedding(const at::Tensor& embedding, const ReadCallback& on_read) {
  constexpr int64_t kPieceRows = 1024;
  auto narrow = at::empty(embedding.sizes(), embedding.options().dtype(at::kBFloat16));
  for (int64_t row = 0; row < embedding.size(0); row += kPieceRows) {
    const int64_t n = std::min(kPieceRows, embedding.size(0) - row);
    const auto piece = embedding.narrow(0, row, n);
    narrow.narrow(0, row, n).copy_(piece);
    if (on_read) on_read(piece.const_data_ptr(), piece.nbytes());
  }
  return narrow;
}

}  // namespace

TransformerImpl::TransformerImpl(const ModelConfig& config) : config_(config) {
  config_.validate();
  if (config.vocab_size < 1) {
    throw Error("model.vocab_size = 0: expected the tokenizer's number of ids");
  }
  embedding_ =
      register_parameter("embedding", at::empty({config.vocab_size, config.d_model}, at::kFloat));
  if (config.positions == PositionKind::kLearned) {
    position_embedding_ = register_parameter(
        "position_embedding", at::empty({config.max_seq_len, config.d_model}, at::kFloat));
  }
  if (config.positions == PositionKind::kRotary) {
    rotary_frequencies_ =
        rotary_frequencies(config.attention.head_dim, config.rope_theta, config.rope_scaling);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    blocks_.push_back(register_module(fmt::format("blocks_{}", i), TransformerBlock(config, i)));
  }
  final_norm_ = register_module("final_norm",
                                Norm(config.norm, config.d_model, config.norm_eps, config.bias));
  if (!config.tie_embeddings) {
    head_ = register_module("head", Linear(config.d_model, config.vocab_size, false));
  }
}

ModelOutput TransformerImpl::forward(const at::Tensor& tokens,
                                     const RoutingPlan& plan,
                                     const ForwardOptions& options) {
  TORCH_CHECK(tokens.dim() == 2 && tokens.scalar_type() == at::kLong,
              "Transformer: expected tokens [batch, seq] int64, got ",
              tokens.sizes(),
              " ",
              tokens.scalar_type());
  const int64_t seq = tokens.size(1);
  AttentionContext context{.positions = {}, .first_keys = {}, .rotary = {}, .cache = options.cache};
  context.positions = options.cache
                          ? begin_cached_pass(options, tokens)
                          : at::arange(seq, tokens.options()).expand({tokens.size(0), seq});
  const int64_t n_positions = options.cache ? options.cache->longest_after_pass() : seq;
  if (n_positions > config_.max_seq_len) {
    throw Error(fmt::format("context: expected at most model.max_seq_len = {} tokens, got {}",
                            config_.max_seq_len,
                            n_positions));
  }
  context.first_keys = first_keys_of(options, tokens, context.positions);
  ForwardOptions settings = options;
  if (embedding_.scalar_type() == at::kDouble) settings.compute_dtype = at::kDouble;
  if (rotary_frequencies_.defined()) {
    rotary_frequencies_ = rotary_frequencies_.to(tokens.device());  // copies once
  }
  auto stream = embed(tokens, options.document_positions, context);
  ModelOutput output;
  output.moe_activation = config_.ffn.router_activation();
  for (size_t i = 0; i < blocks_.size(); ++i) {
    auto result = run_block(i, stream, context, plan.layer(i), settings);
    stream = std::move(result.stream);
    if (result.moa.router_probs.defined()) output.moa.push_back(std::move(result.moa));
    if (result.moe.router_probs.defined()) output.moe.push_back(std::move(result.moe));
  }
  output.features = final_norm_(stream, settings.compute_dtype).normed;
  output.head = {head_.is_empty() ? embedding_ : head_->weight, {}};
  if (options.logits) output.logits = logits_of(output, settings);
  const auto& packed = head_.is_empty() ? packed_embedding_ : head_->packed_weight;
  if (!packed.defined()) {
    auto& copy = head_.is_empty() ? embedding_copy_ : head_->copy;
    output.head.values = copy.values({output.head.parameter}, settings.compute_dtype);
  }
  return output;
}

at::Tensor TransformerImpl::logits_of(const ModelOutput& output, const ForwardOptions& options) {
  auto features = output.features;  // [batch, seq, d_model]
  if (!options.logits_at.empty()) {
    const int64_t batch = features.size(0);
    TORCH_CHECK(
        !options.segments.empty() || static_cast<int64_t>(options.logits_at.size()) == batch,
        "Transformer: expected one position of logits for each of ",
        batch,
        " sequences");
    auto rows = at::tensor(options.logits_at, at::kLong);
    if (batch > 1) rows = rows + at::arange(batch, at::kLong) * features.size(1);
    features = features.flatten(0, 1)
                   .index_select(0, rows.to(features.device()))
                   .unsqueeze(1);  // [n, 1, d_model]
  }
  const auto& packed = head_.is_empty() ? packed_embedding_ : head_->packed_weight;
  if (packed.defined() && !at::GradMode::is_enabled()) {
    return packed_linear(features, {{packed}}, at::kFloat)[0];
  }
  if (!head_.is_empty()) return at::linear(features, head_->weight_as(options.compute_dtype));
  return at::linear(features, embedding_copy_.differentiable(embedding_, options.compute_dtype));
}

void TransformerImpl::pack(const PackOptions& options) {
  const at::NoGradGuard no_grad;
  for (auto& block : blocks_) block->pack(options);
  if (head_.is_empty()) {
    packed_embedding_ = pack_matrix(embedding_, options.format);
  } else {
    head_->pack(options);
  }
  if (!options.keep_original && options.format != PackedFormat::kFloat32) {
    embedding_copy_ = {};
    embedding_.set_requires_grad(false);
    embedding_.set_data(narrow_embedding(embedding_, options.on_read));
  }
}

// Fills in the rotary tables of the context if the model has rotary positions.
ResidualStream TransformerImpl::embed(const at::Tensor& tokens,
                                      const at::Tensor& document_positions,
                                      AttentionContext& context) {
  const auto& positions = document_positions.defined() ? document_positions : context.positions;
  auto x = at_least_float32(at::embedding(embedding_, tokens));  // [batch, seq, d_model]
  if (position_embedding_.defined()) {
    x = x + at::embedding(position_embedding_, positions);
  } else {
    // Without a cache or documents every sequence has the same positions.
    const bool all_alike = context.cache == nullptr && !document_positions.defined();
    context.rotary = rotary_tables(all_alike ? positions.select(0, 0) : positions,
                                   rotary_frequencies_,
                                   x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }
  return {at::dropout(x, config_.dropout, is_training()), {}};
}

BlockOutput TransformerImpl::run_block(size_t index,
                                       const ResidualStream& stream,
                                       const AttentionContext& context,
                                       const LayerRouting& routing,
                                       const ForwardOptions& options) {
  const auto dtype = options.compute_dtype;
  const auto attention = [=, block = blocks_[index].ptr()](const ResidualStream& x) {
    return block->attention_half(x, context, static_cast<int64_t>(index), routing.moa, dtype);
  };
  const auto ffn = [=, block = blocks_[index].ptr()](const ResidualStream& x) {
    return block->ffn_half(x, routing.moe, dtype);
  };
  const auto both = [=](const auto& run_attention) {
    return [=](const ResidualStream& x) {
      auto first = run_attention(x);
      auto output = ffn(first.stream);
      output.moa = std::move(first.moa);
      return output;
    };
  };
  switch (options.recompute) {
    case Recompute::kNone:
      return both(attention)(stream);
    case Recompute::kAttention:
      return both([=](const ResidualStream& x) { return run_recomputed(attention, x); })(stream);
    case Recompute::kBlock:
      return run_recomputed(both(attention), stream);
  }
  TORCH_CHECK(false, "Transformer: unknown recompute mode");
}

void TransformerImpl::force_gates(bool forced) {
  for (auto& block : blocks_) {
    if (auto layer = block->partitioned()) layer->gates_forced_to_one = forced;
  }
}

int64_t TransformerImpl::n_kv_heads() const {
  return config_.attention.kind == AttentionKind::kMoa ? config_.attention.heads_per_expert
                                                       : config_.attention.n_kv_heads;
}

bool TransformerImpl::can_record_decoding(const RoutingPlan& plan,
                                          KvCache& cache,
                                          at::ScalarType compute_dtype) const {
  const AttentionContext context{.positions = {}, .first_keys = {}, .rotary = {}, .cache = &cache};
  const at::NoGradGuard no_grad;
  const auto path = choose_attention_path(context, 1, compute_dtype, device());
  if (path != AttentionPath::kDecoding) return false;
  const auto x = at::empty({cache.n_sequences(), config_.d_model},
                           at::TensorOptions(compute_dtype).device(device()));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i]->decoding_needs_host_sync(x, plan.layer(i))) return false;
  }
  return true;
}

KvShape TransformerImpl::kv_shape(at::ScalarType dtype) const {
  return {config_.n_layers, n_kv_heads(), config_.attention.head_dim, dtype, device()};
}

KvCache TransformerImpl::make_cache(int64_t batch, int64_t capacity, at::ScalarType dtype) const {
  return KvCache(kv_shape(dtype), batch, capacity);
}

}  // namespace dsmoe
