#include "report/gpu_roofline.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace dsmoe {
namespace {

constexpr double kNarrow = 2;  // bytes of a bfloat16
constexpr double kWide = 4;    // of a float32
// Sums of a router's weight over chunks of rows, an expert (router_device_chunks).
constexpr double kPartialSums = 1 << 14;

// The sizes of a model's layers, as numbers to multiply.
struct Shapes {
  explicit Shapes(const ModelConfig& config) {
    const auto& attention = config.attention;
    has_moa = attention.kind == AttentionKind::kMoa;
    has_moe = config.has_ffn_experts();
    const double hd = static_cast<double>(attention.head_dim);
    layers = static_cast<double>(config.n_layers);
    d = static_cast<double>(config.d_model);
    vocab = static_cast<double>(config.vocab_size);
    moa_experts = has_moa ? static_cast<double>(attention.n_experts) : 1;
    moe_experts = has_moe ? static_cast<double>(config.ffn.n_experts) : 1;
    const auto heads =
        has_moa ? attention.n_experts * attention.heads_per_expert : attention.n_heads;
    const auto kv_heads = has_moa ? attention.heads_per_expert : attention.n_kv_heads;
    q_width = hd * static_cast<double>(heads);
    kv_width = hd * static_cast<double>(kv_heads);
    ffn_width = has_moe ? moe_experts * static_cast<double>(config.ffn.d_expert)
                        : static_cast<double>(config.ffn.d_ffn);
    n_in = static_cast<double>(n_inputs(config.ffn.activation));
    moa_router = attention.router;
    moe_router = config.ffn.router;
    parameters = static_cast<double>(count_parameters(config).total());
  }

  double layers, d, vocab, moa_experts, moe_experts, q_width, kv_width, ffn_width, n_in;
  double parameters;
  RouterConfig moa_router, moe_router;
  bool has_moa, has_moe;
};

class Builder {
 public:
  Builder(const GpuSpec& gpu, const RooflineAssumptions& assumptions)
      : gpu_(gpu), assumptions_(assumptions) {}

  // `count` products of [rows, in] and [in, out], each input and the output once through memory.
  void product(std::string name, double count, double rows, double in, double out) {
    const double bytes = kNarrow * (rows * in + in * out + rows * out);
    add({std::move(name), count, count * 2 * rows * in * out, count * bytes, 0, true},
        assumptions_.matrix_share,
        assumptions_.stream_share);
  }
  // Forward, gradient of the input, gradient of the weight.
  void trained_product(std::string name, double count, double rows, double in, double out) {
    product(std::move(name), 3 * count, rows, in, out);
  }
  void stream(std::string name, double launches, double bytes) {
    add({std::move(name), launches, 0, bytes, 0, false}, 1, assumptions_.stream_share);
  }
  // Products in float32 outside the tensor cores.
  void wide_products(std::string name, double launches, double flops, double bytes) {
    stream(std::move(name), launches, bytes);
    auto& seconds = roofline_.kernels.back().seconds;
    seconds = std::max(seconds, flops / (gpu_.float32_flops * assumptions_.float32_share));
  }
  void attention(std::string name, double launches, double flops, double bytes) {
    add({std::move(name), launches, flops, bytes, 0, true},
        assumptions_.attention_share,
        assumptions_.stream_share);
  }
  // Matrices that are read once for few rows.
  void vectors(std::string name, double launches, double weights, double rows) {
    add({std::move(name), launches, 2 * weights * rows, kNarrow * weights, 0, true},
        assumptions_.matrix_share,
        assumptions_.vector_share);
  }
  void wait_between_launches() {
    for (auto& kernel : roofline_.kernels) {
      kernel.seconds += kernel.launches * assumptions_.launch_seconds;
    }
  }
  Roofline take() { return std::move(roofline_); }

 private:
  void add(KernelWork work, double matrix_share, double memory_share) {
    const double moved = work.bytes / (gpu_.bytes_per_second * memory_share);
    const double computed = work.flops / (gpu_.flops * matrix_share);
    work.seconds = std::max(moved, computed);
    if (work.launches > 0) roofline_.kernels.push_back(std::move(work));
  }

  GpuSpec gpu_;
  RooflineAssumptions assumptions_;
  Roofline roofline_;
};

// Columns of a router's last matrix.
double router_width(const RouterConfig& router, double d_model) {
  return router.has_hidden() ? static_cast<double>(router.d_hidden) : d_model;
}

// A router with its gradients.
void add_trained_router(Builder& builder,
                        const Shapes& s,
                        const RouterConfig& router,
                        double experts,
                        double rows) {
  const double width = router_width(router, s.d);
  const auto hidden = static_cast<double>(router.hidden_rows());
  const double inputs = hidden > 0 ? hidden : s.d;
  if (hidden > 0) builder.trained_product("router hidden layer", s.layers, rows, s.d, inputs);
  const double weight = kWide * width * experts;
  // The hidden layer and the weight in, logits and probabilities out.
  builder.wide_products("router logits, softmax",
                        s.layers,
                        s.layers * 2 * rows * width * experts,
                        s.layers * (rows * (kNarrow * inputs + 2 * kWide * experts) + weight));
  // Reads those and the gradients of logits and probabilities; writes the hidden layer's gradient
  // and sums over chunks of rows, which a second kernel adds.
  builder.wide_products("router logits, softmax: gradients",
                        2 * s.layers,
                        s.layers * 4 * rows * width * experts,
                        s.layers * (rows * (2 * kNarrow * inputs + 3 * kWide * experts) +
                                    2 * weight + 2 * kWide * kPartialSums * experts));
}

// Means over the layers, per token.
double mean(const std::vector<double>& values, double otherwise) {
  if (values.empty()) return otherwise;
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Returns the expected experts that at least one of `batch` tokens uses, if each picks `active` of
// `experts` at random.
double used_by_any(double active, double experts, double batch) {
  return experts * (1 - std::pow(1 - std::min(active / experts, 1.0), batch));
}

}  // namespace

double Roofline::seconds() const {
  double sum = 0;
  for (const auto& kernel : kernels) sum += kernel.seconds;
  return sum;
}

double Roofline::flops() const {
  double sum = 0;
  for (const auto& kernel : kernels) sum += kernel.flops;
  return sum;
}

double Roofline::bytes() const {
  double sum = 0;
  for (const auto& kernel : kernels) sum += kernel.bytes;
  return sum;
}

Roofline training_roofline(const ModelConfig& config,
                           const GpuSpec& gpu,
                           int64_t n_tokens,
                           int64_t seq_len,
                           const RooflineAssumptions& assumptions) {
  const Shapes s(config);
  Builder builder(gpu, assumptions);
  const auto t = static_cast<double>(n_tokens);
  const auto seq = static_cast<double>(seq_len);
  builder.trained_product("queries", s.layers, t, s.d, s.q_width);
  builder.trained_product("keys, values", 2 * s.layers, t, s.d, s.kv_width);
  builder.trained_product("attention output", s.layers, t, s.q_width, s.d);
  builder.trained_product("FFN up", s.n_in * s.layers, t, s.d, s.ffn_width);
  builder.trained_product("FFN down", s.layers, t, s.ffn_width, s.d);
  builder.trained_product("head", 1, t, s.d, s.vocab);
  // A query attends to half the sequence on average; backward computes the scores again: 2.5 times
  // forward.
  const double attended = 4 * t * (seq / 2) * s.q_width;
  const double heads = kNarrow * t * (2 * s.q_width + 2 * s.kv_width);
  builder.attention("attention", 2 * s.layers, s.layers * 3.5 * attended, s.layers * 3 * heads);
  // Forward: residual and half block in, residual and normed out. Backward: residual, gradients of
  // normed and residual in, gradients of both out.
  const double norm = t * s.d * ((2 * kWide + 2 * kNarrow) + (3 * kWide + 2 * kNarrow));
  builder.stream("norms", 2 * (2 * s.layers + 1), (2 * s.layers + 1) * norm);
  // Autograd adds the gradients of an input that several products read: queries, keys and values,
  // the FFN's inputs, routers.
  const double n_routers = (s.has_moa ? 1 : 0) + (s.has_moe ? 1 : 0);
  const double n_sums = 2 + (s.n_in - 1) + n_routers;
  builder.stream("sums of gradients", n_sums * s.layers, s.layers * n_sums * 3 * kNarrow * t * s.d);
  builder.stream("rotary", 4 * s.layers, s.layers * 2 * 2 * kNarrow * t * (s.q_width + s.kv_width));
  // Forward: up, gate in, hidden out; backward: those and a gradient in, hidden and gradients out.
  const double activation = kNarrow * t * s.ffn_width * ((s.n_in + 1) + (2 * s.n_in + 2));
  builder.stream("activation, times the experts' weights",
                 2 * s.layers,
                 s.layers * (activation + (s.has_moe ? 3 * kWide * t * s.moe_experts : 0)));
  if (s.has_moa) {
    builder.stream("attention heads times the experts' weights",
                   2 * s.layers,
                   s.layers * (kNarrow * t * s.q_width * 6 + 3 * kWide * t * s.moa_experts));
    add_trained_router(builder, s, s.moa_router, s.moa_experts, t);
  }
  if (s.has_moe) add_trained_router(builder, s, s.moe_router, s.moe_experts, t);
  if (s.has_moa || s.has_moe) {
    const double experts = (s.has_moa ? s.moa_experts : 0) + (s.has_moe ? s.moe_experts : 0);
    builder.stream("mutual-information loss", 4 * s.layers, s.layers * 3 * kWide * t * experts);
  }
  builder.stream("cross entropy", 1, 3 * kNarrow * t * s.vocab);
  // Weight gradients from bfloat16 to float32, their norm, AdamW, the weights' bfloat16 copies.
  builder.stream("gradients to float32, norm", 2, s.parameters * (kNarrow + 2 * kWide));
  builder.stream("AdamW, weights to bfloat16", 2, s.parameters * (7 * kWide + kWide + kNarrow));
  return builder.take();
}

Roofline decode_roofline(const ModelConfig& config,
                         const GpuSpec& gpu,
                         int64_t batch,
                         int64_t n_keys,
                         const ActiveExperts& active,
                         bool sparse,
                         const RooflineAssumptions& assumptions) {
  const Shapes s(config);
  Builder builder(gpu, assumptions);
  const auto b = static_cast<double>(batch);
  const auto share = [&](bool has, const std::vector<double>& per_layer, double experts) {
    if (!has || !sparse) return 1.0;
    return used_by_any(mean(per_layer, experts), experts, b) / experts;
  };
  const double moa_read = share(s.has_moa, active.moa, s.moa_experts);
  const double moe_read = share(s.has_moe, active.moe, s.moe_experts);
  builder.vectors("queries", s.layers, s.layers * s.d * s.q_width * moa_read, b);
  builder.vectors("keys, values", 2 * s.layers, 2 * s.layers * s.d * s.kv_width, b);
  const double cache = kNarrow * 2 * s.kv_width * static_cast<double>(n_keys) * b;
  builder.stream("attention: store, tiles, join", 3 * s.layers, s.layers * cache);
  builder.vectors("attention output", s.layers, s.layers * s.q_width * s.d * moa_read, b);
  builder.vectors(
      "FFN up, activation", s.layers, s.layers * s.n_in * s.d * s.ffn_width * moe_read, b);
  builder.vectors("FFN down", s.layers, s.layers * s.ffn_width * s.d * moe_read, b);
  builder.vectors("head", 1, s.d * s.vocab, b);
  builder.stream(
      "norms", 2 * s.layers + 1, (2 * s.layers + 1) * b * s.d * (2 * kWide + 2 * kNarrow));
  const auto router = [&](bool has, const RouterConfig& form, double experts) {
    if (!has) return;
    builder.vectors("router hidden layer",
                    form.has_hidden() ? s.layers : 0,
                    s.layers * s.d * static_cast<double>(form.hidden_rows()),
                    b);
    builder.stream("router logits, softmax, choice",
                   2 * s.layers,
                   s.layers * router_width(form, s.d) * experts * kWide);
  };
  router(s.has_moa, s.moa_router, s.moa_experts);
  router(s.has_moe, s.moe_router, s.moe_experts);
  builder.wait_between_launches();
  return builder.take();
}

}  // namespace dsmoe
