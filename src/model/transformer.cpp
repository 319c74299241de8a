#include "model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <fmt/format.h>

#include "common/error.h"
#include "model/activation_checkpoint.h"

namespace dsmoe {
namespace {

// A checkpointed block hands its output over as a flat list; dense halves leave their part out.
std::vector<at::Tensor> to_list(const BlockOutput& output) {
  std::vector<at::Tensor> list{output.x};
  for (const auto* record : {&output.moa, &output.moe}) {
    if (!record->router_logits.defined()) continue;
    list.insert(list.end(), {record->router_logits, record->router_probs, record->selected});
  }
  return list;
}

BlockOutput from_list(const std::vector<at::Tensor>& list, bool has_moa, bool has_moe) {
  BlockOutput output{.x = list[0], .moa = {}, .moe = {}};
  size_t next = 1;
  const auto take = [&](RoutingRecord& record) {
    record = {list[next], list[next + 1], list[next + 2]};
    next += 3;
  };
  if (has_moa) take(output.moa);
  if (has_moe) take(output.moe);
  return output;
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
  for (int64_t i = 0; i < config.n_layers; ++i) {
    blocks_.push_back(register_module(fmt::format("blocks_{}", i), TransformerBlock(config)));
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
  AttentionContext context{.positions = {}, .rotary = {}, .cache = options.cache};
  context.positions = options.cache ? options.cache->next_positions(seq)
                                    : at::arange(seq, at::kLong).expand({tokens.size(0), seq});
  const int64_t n_positions =
      context.positions.numel() > 0 ? context.positions.max().item<int64_t>() + 1 : 0;
  if (n_positions > config_.max_seq_len) {
    throw Error(fmt::format("context: expected at most model.max_seq_len = {} tokens, got {}",
                            config_.max_seq_len,
                            n_positions));
  }
  const bool wide = embedding_.scalar_type() == at::kDouble;
  const auto dtype = wide ? at::kDouble : options.compute_dtype;
  auto x = at::embedding(embedding_, tokens);  // [batch, seq, d_model]
  if (position_embedding_.defined()) {
    x = x + at::embedding(position_embedding_, context.positions);
  } else {
    context.rotary = rotary_tables(context.positions,
                                   config_.attention.head_dim,
                                   config_.rope_theta,
                                   wide ? at::kDouble : at::kFloat);
  }
  x = at::dropout(x, config_.dropout, is_training());

  ModelOutput output;
  const bool has_moa = config_.attention.kind == AttentionKind::kMoa;
  const bool has_moe = config_.ffn.kind == FfnKind::kMoe;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    auto run = [block = blocks_[i], context, i, routing = plan.layer(i), dtype](
                   const at::Tensor& input) mutable {
      return block(input, context, static_cast<int64_t>(i), routing, dtype);
    };
    auto result =
        options.checkpoint_activations && x.requires_grad()
            ? from_list(
                  checkpoint_activations(
                      [run](const at::Tensor& input) mutable { return to_list(run(input)); }, x),
                  has_moa,
                  has_moe)
            : run(x);
    x = result.x;
    if (has_moa) output.moa.push_back(std::move(result.moa));
    if (has_moe) output.moe.push_back(std::move(result.moe));
  }
  const auto features = final_norm_(x).to(dtype);
  output.logits = head_.is_empty() ? at::linear(features, embedding_.to(dtype)) : head_(features);
  return output;
}

int64_t TransformerImpl::n_kv_heads() const {
  return config_.attention.kind == AttentionKind::kMoa ? config_.attention.heads_per_expert
                                                       : config_.attention.n_kv_heads;
}

KvCache TransformerImpl::make_cache(int64_t batch, int64_t capacity, at::ScalarType dtype) const {
  return KvCache(
      config_.n_layers, batch, n_kv_heads(), capacity, config_.attention.head_dim, dtype);
}

}  // namespace dsmoe
