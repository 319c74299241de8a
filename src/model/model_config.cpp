#include "model/model_config.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>
#include <vector>

#include "common/config_visitor.h"
#include "common/error.h"
#include "model/moe/routing_plan.h"

namespace dsmoe {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;

constexpr const char* kRotaryNeeded = "model.positions: rotary";
constexpr const char* kDenseAttention = "model.attention.kind: dense";
constexpr const char* kMoa = "model.attention.kind: moa";
constexpr const char* kFfnExperts = "model.ffn.kind: moe or partitioned";

const std::vector<std::pair<std::string, Activation>> kActivationNames = {
    {"gelu", Activation::kGelu},
    {"gelu_tanh", Activation::kGeluTanh},
    {"swiglu", Activation::kSwiglu},
    {"silu", Activation::kSilu},
    {"quick_gelu", Activation::kQuickGelu},
    {"relu_squared", Activation::kReluSquared}};

// What a key without effect needs; null if it has one.
const char* needs(bool has_effect, const char* what) { return has_effect ? nullptr : what; }

// The rule of a key that has an effect beside the others, or has none.
InitRule acts(bool has_effect) { return has_effect ? InitRule::kCompared : InitRule::kFree; }

std::string describe_router_kinds() {
  std::string doc;
  for (const auto& row : kRouterKinds) {
    doc += fmt::format("{}{}: {}", doc.empty() ? "" : "; ", row.name, row.doc);
  }
  return doc;
}

// kind_needed: what gives the section an effect; hidden_needed: what gives d_hidden one.
void describe_router(ConfigVisitor& v,
                     RouterConfig& router,
                     bool is_used,
                     const char* kind_needed,
                     const char* hidden_needed) {
  static const std::string doc = describe_router_kinds();  // visitors keep the pointer
  std::vector<std::pair<std::string, RouterKind>> names;
  for (const auto& row : kRouterKinds) names.emplace_back(row.name, row.kind);
  v.begin_section("router", "the network that gives each expert its probability");
  const auto* section_needs = needs(is_used, kind_needed);
  choice(v,
         "kind",
         router.kind,
         names,
         {.doc = doc.c_str(), .init = acts(is_used), .needs = section_needs});
  v.integer("d_hidden",
            router.d_hidden,
            1,
            kMaxSize,
            {.doc = "width of the hidden layer of the kinds swiglu and mlp",
             .init = acts(is_used && router.has_hidden()),
             .needs = is_used ? needs(router.has_hidden(), hidden_needed) : kind_needed});
  v.boolean("renormalise",
            router.renormalise,
            {.doc = "divide the selected experts' weights by their sum",
             .init = acts(is_used),
             .needs = section_needs});
  v.end_section();
}

void describe_rope_scaling(ConfigVisitor& v, RopeScalingConfig& scaling, bool is_rotary) {
  v.begin_section("rope_scaling", "rotary frequencies stretched for a longer context");
  choice(v,
         "kind",
         scaling.kind,
         {{"none", RopeScalingKind::kNone}, {"llama3", RopeScalingKind::kLlama3}},
         {.doc = "llama3 divides low frequencies by factor, at any context length",
          .init = acts(is_rotary),
          .needs = needs(is_rotary || scaling.kind == RopeScalingKind::kNone, kRotaryNeeded)});
  const bool is_scaled = is_rotary && scaling.kind != RopeScalingKind::kNone;
  const auto init = acts(is_scaled);
  const auto* kind_needed = needs(is_scaled, "model.rope_scaling.kind: llama3");
  v.real("factor",
         scaling.factor,
         1.0,
         1e6,
         {.doc = "divides the low frequencies", .init = init, .needs = kind_needed});
  v.real("low_freq_factor",
         scaling.low_freq_factor,
         1e-6,
         1e6,
         {.doc = "wavelengths above original_max_seq_len / this are stretched in full",
          .init = init,
          .needs = kind_needed});
  v.real("high_freq_factor",
         scaling.high_freq_factor,
         1e-6,
         1e6,
         {.doc = "wavelengths below original_max_seq_len / this are kept",
          .init = init,
          .needs = kind_needed});
  v.integer("original_max_seq_len",
            scaling.original_max_seq_len,
            1,
            kMaxSize,
            {.doc = "context before the stretching",
             .unit = "tokens",
             .init = init,
             .needs = kind_needed});
  v.end_section();
}

void describe_attention(ConfigVisitor& v, ModelConfig& config) {
  auto& attention = config.attention;
  v.begin_section("attention", "multi-head attention, dense or a mixture of experts");
  choice(v,
         "kind",
         attention.kind,
         {{"dense", AttentionKind::kDense}, {"moa", AttentionKind::kMoa}},
         {.doc = "dense uses n_heads and n_kv_heads; moa uses the section model.moa"});
  v.integer("head_dim", attention.head_dim, 2, kMaxSize, {.doc = "width of one head"});
  const bool is_moa = attention.kind == AttentionKind::kMoa;
  v.integer("n_heads",
            attention.n_heads,
            1,
            kMaxSize,
            {.doc = "query heads of the dense kind",
             .init = acts(!is_moa),
             .needs = needs(!is_moa, kDenseAttention)});
  v.integer("n_kv_heads",
            attention.n_kv_heads,
            1,
            kMaxSize,
            {.doc = "key/value heads of the dense kind",
             .init = acts(!is_moa),
             .needs = needs(!is_moa, kDenseAttention)});
  v.boolean("qk_norm",
            attention.qk_norm,
            {.doc = "RMSNorm over all queries of a token and another one over its keys, before "
                    "rotary positions; the dense kind only",
             .init = acts(!is_moa),
             .needs = needs(!is_moa, kDenseAttention)});
  v.end_section();
  v.begin_section("moa", "mixture of attention heads");
  v.integer("n_experts",
            attention.n_experts,
            1,
            kMaxSize,
            {.doc = "attention experts", .init = acts(is_moa), .needs = needs(is_moa, kMoa)});
  v.integer("heads_per_expert",
            attention.heads_per_expert,
            1,
            kMaxSize,
            {.doc = "query heads of one expert; also the number of shared key/value heads",
             .init = acts(is_moa),
             .needs = needs(is_moa, kMoa)});
  describe_router(v, attention.router, is_moa, kMoa, "model.moa.router.kind: swiglu or mlp");
  v.end_section();
}

void describe_partition(ConfigVisitor& v, PartitionConfig& partition, bool is_used) {
  const auto init = acts(is_used);
  const auto* kind_needed = needs(is_used, "model.ffn.kind: partitioned");
  v.begin_section("partition", "gates of the experts that a dense network was cut into");
  v.text(
      "layers",
      partition.layers,
      {.doc =
           "layers that are cut into experts: all, or a list such as 0-3,7; the others stay dense",
       .init = init,
       .needs = kind_needed});
  choice(v,
         "gates",
         partition.gates,
         {{"sigmoid", RouterActivation::kSigmoid}, {"softmax", RouterActivation::kSoftmax}},
         {.doc = "sigmoid: an independent gate per expert; softmax: over the selected experts, as "
                 "in the baseline LLaMA-MoE (arXiv:2406.16554)",
          .init = init,
          .needs = kind_needed});
  v.boolean("ste",
            partition.straight_through,
            {.doc = "straight-through estimator: closed gates receive the gradient of open ones",
             .init = is_used ? InitRule::kTaken : InitRule::kFree,
             .needs = kind_needed});
  v.boolean("count_scale",
            partition.count_scale,
            {.doc = "multiply the output by n_experts / number of open gates",
             .init = init,
             .needs = kind_needed});
  choice(v,
         "zero_active",
         partition.zero_active,
         {{"zero", ZeroActive::kZero}, {"argmax", ZeroActive::kArgmax}, {"all", ZeroActive::kAll}},
         {.doc = "experts of a token that opens no gate: none, its strongest expert, or all",
          .init = init,
          .needs = kind_needed});
  v.end_section();
}

void describe_ffn(ConfigVisitor& v, ModelConfig& config) {
  auto& ffn = config.ffn;
  v.begin_section("ffn", "feed-forward network, dense or a mixture of experts");
  choice(
      v,
      "kind",
      ffn.kind,
      {{"dense", FfnKind::kDense}, {"moe", FfnKind::kMoe}, {"partitioned", FfnKind::kPartitioned}},
      {.doc = "dense uses d_ffn; moe uses the section model.moe; partitioned, a dense one cut "
              "into experts, uses model.partition too"});
  choice(v,
         "activation",
         ffn.activation,
         kActivationNames,
         {.doc = "swiglu adds a third matrix, gate_proj; quick_gelu is x sigmoid(1.702 x)"});
  v.integer("d_ffn",
            ffn.d_ffn,
            1,
            kMaxSize,
            {.doc = "width of the dense kind",
             .init = acts(ffn.kind != FfnKind::kMoe),
             .needs = needs(ffn.kind != FfnKind::kMoe, "model.ffn.kind: dense or partitioned")});
  v.end_section();
  v.begin_section("moe", "mixture of feed-forward experts");
  const bool has_experts = config.has_ffn_experts();
  const auto init = acts(has_experts);
  const auto* kind_needed = needs(has_experts, kFfnExperts);
  v.integer("n_experts",
            ffn.n_experts,
            1,
            kMaxSize,
            {.doc = "feed-forward experts", .init = init, .needs = kind_needed});
  v.integer("d_expert",
            ffn.d_expert,
            1,
            kMaxSize,
            {.doc = "width of one expert", .init = init, .needs = kind_needed});
  describe_router(v, ffn.router, has_experts, kFfnExperts, "model.moe.router.kind: swiglu or mlp");
  v.end_section();
  describe_partition(v, ffn.partition, ffn.kind == FfnKind::kPartitioned);
}

// A list of layers and ranges such as `0-3,7`; bounds are checked by validate.
std::vector<std::pair<int64_t, int64_t>> parse_layers(const std::string& text) {
  const auto fail = [&] {
    throw Error(
        fmt::format("model.partition.layers: expected all or a list as 0-3,7, got '{}'", text));
  };
  const char* at = text.data();
  const char* end = at + text.size();
  const auto number = [&] {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc{} || value < 0) fail();
    at = stop;
    return value;
  };
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (bool more = true; more;) {
    const int64_t first = number();
    const bool is_range = at != end && *at == '-';
    if (is_range) ++at;
    ranges.emplace_back(first, is_range ? number() : first);
    more = at != end;
    if (more && *at++ != ',') fail();
  }
  return ranges;
}

void check_partition(const ModelConfig& config) {
  const auto& ffn = config.ffn;
  if (ffn.d_ffn != ffn.n_experts * ffn.d_expert) {
    throw Error(fmt::format(
        "model.ffn.d_ffn = {} is not model.moe.n_experts = {} times model.moe.d_expert = {}",
        ffn.d_ffn,
        ffn.n_experts,
        ffn.d_expert));
  }
  if (ffn.router.renormalise) {
    throw Error("model.moe.router.renormalise: gates of partitioned experts are not renormalised");
  }
  if (ffn.partition.gates == RouterActivation::kSoftmax && ffn.partition.straight_through) {
    throw Error(
        "model.partition.gates = softmax has no straight-through estimator; set "
        "model.partition.ste = false");
  }
  if (ffn.partition.layers == "all") return;
  for (const auto& [first, last] : parse_layers(ffn.partition.layers)) {
    if (first > last || last >= config.n_layers) {
      throw Error(fmt::format("model.partition.layers: {}-{} is outside [0, model.n_layers = {})",
                              first,
                              last,
                              config.n_layers));
    }
  }
}

}  // namespace

void describe(ConfigVisitor& v, ModelConfig& config) {
  v.begin_section("model", "shape and arithmetic of the model");
  v.integer(
      "vocab_size", config.vocab_size, 0, kMaxSize, {.doc = "token ids; 0 takes the tokenizer's"});
  v.integer("d_model", config.d_model, 1, kMaxSize, {.doc = "width of the residual stream"});
  v.integer("n_layers", config.n_layers, 1, 4096, {.doc = "transformer blocks"});
  // A learned position has a row of weights; rotary positions have no limit.
  v.integer("max_seq_len",
            config.max_seq_len,
            1,
            kMaxSize,
            {.doc = "longest context",
             .unit = "tokens",
             .init = config.positions == PositionKind::kLearned ? InitRule::kCompared
                                                                : InitRule::kTaken});
  choice(v,
         "norm",
         config.norm,
         {{"layer_norm", NormKind::kLayerNorm}, {"rms_norm", NormKind::kRmsNorm}},
         {.doc = "normalisation before each half of a block and before the head"});
  v.real(
      "norm_eps",
      config.norm_eps,
      0.0,
      1.0,
      {.doc =
           "added under the root: to the variance (layer_norm) or to the mean square (rms_norm)"});
  choice(v,
         "positions",
         config.positions,
         {{"rotary", PositionKind::kRotary}, {"learned", PositionKind::kLearned}},
         {.doc = "rotary rotates queries and keys; learned adds an embedding"});
  const bool is_rotary = config.positions == PositionKind::kRotary;
  v.real("rope_theta",
         config.rope_theta,
         1.0,
         1e12,
         {.doc = "base of the rotary frequencies",
          .init = acts(is_rotary),
          .needs = needs(is_rotary, kRotaryNeeded)});
  v.boolean("tie_embeddings",
            config.tie_embeddings,
            {.doc = "the output head uses the embedding matrix"});
  v.boolean(
      "bias",
      config.bias,
      {.doc = "biases in attention, FFN and layer_norm; routers, rms_norm and head have none"});
  v.boolean("output_bias",
            config.output_bias,
            {.doc = "biases of the last projection of attention and FFN only; part of bias",
             .init = acts(!config.bias)});
  v.real("dropout",
         config.dropout,
         0.0,
         0.99,
         {.doc = "dropout rate of the embedding and of both outputs of each block; 0 is off",
          .init = InitRule::kFree});
  v.text("training_policy",
         config.training_policy,
         {.doc = "routing policy of training, written as on the command line; also the default "
                 "policy of eval and generate",
          .init = InitRule::kTaken});
  describe_rope_scaling(v, config.rope_scaling, is_rotary);
  describe_attention(v, config);
  describe_ffn(v, config);
  v.end_section();
}

std::string activation_name(Activation activation) {
  for (const auto& [name, value] : kActivationNames) {
    if (value == activation) return name;
  }
  return "identity";
}

bool ModelConfig::has_ffn_experts(int64_t layer) const {
  if (ffn.kind != FfnKind::kPartitioned || ffn.partition.layers == "all") return has_ffn_experts();
  for (const auto& [first, last] : parse_layers(ffn.partition.layers)) {
    if (first <= layer && layer <= last) return true;
  }
  return false;
}

RouterActivation FfnConfig::router_activation() const {
  const bool sigmoid =
      kind == FfnKind::kPartitioned && partition.gates == RouterActivation::kSigmoid;
  return sigmoid ? RouterActivation::kSigmoid : RouterActivation::kSoftmax;
}

void ModelConfig::validate() const {
  if (positions == PositionKind::kRotary && attention.head_dim % 2 != 0) {
    throw Error(fmt::format("model.attention.head_dim = {} must be even for rotary positions",
                            attention.head_dim));
  }
  if (attention.kind == AttentionKind::kDense && attention.n_heads % attention.n_kv_heads != 0) {
    throw Error(fmt::format("model.attention.n_heads = {} is not a multiple of n_kv_heads = {}",
                            attention.n_heads,
                            attention.n_kv_heads));
  }
  if (rope_scaling.kind == RopeScalingKind::kLlama3 &&
      rope_scaling.low_freq_factor >= rope_scaling.high_freq_factor) {
    throw Error(
        fmt::format("model.rope_scaling.low_freq_factor = {} is not below high_freq_factor = {}",
                    rope_scaling.low_freq_factor,
                    rope_scaling.high_freq_factor));
  }
  const bool moa = attention.kind == AttentionKind::kMoa;
  if (moa && attention.qk_norm) {
    throw Error(
        "model.attention.qk_norm: expected false for kind moa, got true; a norm over all queries "
        "needs the queries of every expert, also of unselected ones");
  }
  if (ffn.kind == FfnKind::kPartitioned) check_partition(*this);
  const auto plan = parse_routing_plan(training_policy);
  plan.validate(static_cast<size_t>(n_layers),
                moa ? attention.n_experts : 0,
                has_ffn_experts() ? ffn.n_experts : 0);
}

}  // namespace dsmoe
