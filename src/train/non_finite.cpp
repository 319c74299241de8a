#include "train/non_finite.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <charconv>
#include <functional>
#include <utility>
#include <vector>

#include "train/finite.h"

namespace dsmoe {
namespace {

// The part of a parameter that is one expert: `count` equal blocks along `axis`.
struct ExpertBlocks {
  int64_t layer = 0;
  std::string kind;
  int64_t axis = 0;
  int64_t count = 0;
};

std::optional<int64_t> layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "blocks_";
  int64_t layer = 0;
  if (name.rfind(kPrefix, 0) != 0) return std::nullopt;
  const char* begin = name.data() + kPrefix.size();
  if (std::from_chars(begin, name.data() + name.size(), layer).ec != std::errc{}) return {};
  return layer;
}

// Expert weights are stored wide: outputs of an expert are rows of the first projections and
// columns of the last; a bias of the last belongs to no expert.
std::optional<ExpertBlocks> expert_blocks(const std::string& name,
                                          const at::Tensor& parameter,
                                          const ModelConfig& config) {
  const auto layer = layer_of(name);
  if (!layer) return std::nullopt;
  const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (has(".moe.experts.")) {
    const int64_t axis = has(".down_proj.") ? 1 : 0;
    if (axis >= parameter.dim()) return std::nullopt;
    return ExpertBlocks{*layer, "moe", axis, config.ffn.n_experts};
  }
  if (has(".moa.q_proj.") || has(".moa.o_proj.")) {
    const int64_t axis = has(".moa.o_proj.") ? 1 : 0;
    if (axis >= parameter.dim()) return std::nullopt;
    return ExpertBlocks{*layer, "moa", axis, config.attention.n_experts};
  }
  return std::nullopt;
}

NonFiniteOrigin describe(const char* stage,
                         const std::string& name,
                         const at::Tensor& values,
                         int64_t index,
                         const ModelConfig& config) {
  NonFiniteOrigin origin{
      .stage = stage, .tensor = name, .layer = layer_of(name), .kind = {}, .expert = {}};
  if (const auto blocks = expert_blocks(name, values, config)) {
    const int64_t place =
        blocks->axis == 0 ? index / (values.numel() / values.size(0)) : index % values.size(1);
    origin.kind = blocks->kind;
    origin.expert = place / (values.size(blocks->axis) / blocks->count);
  }
  return origin;
}

bool is_finite(const at::Tensor& values) { return at::isfinite(values).all().item<bool>(); }

// The attention or the FFN of a layer; each has its own router.
struct Half {
  int64_t layer;
  const char* kind;
};

// The half blocks between the last router with finite inputs and the first with non-finite ones.
std::vector<Half> suspects(const ModelOutput& output) {
  std::vector<Half> between;
  const size_t n_layers = std::max(output.moe.size(), output.moa.size());
  for (size_t i = 0; i < n_layers; ++i) {
    const auto layer = static_cast<int64_t>(i);
    if (i < output.moa.size()) {
      if (!is_finite(output.moa[i].router_logits)) return between;
      between.clear();
      between.push_back({layer, "moa"});
    }
    if (i < output.moe.size()) {
      if (!is_finite(output.moe[i].router_logits)) return between;
      between.clear();
      between.push_back({layer, "moe"});
    }
  }
  if (is_finite(output.logits)) return {};
  return between;
}

// Zeroes the blocks of one expert for as long as it lives.
class SilencedExpert {
 public:
  SilencedExpert(const NamedTensors& parameters,
                 const ModelConfig& config,
                 Half half,
                 int64_t expert) {
    for (const auto& [name, parameter] : parameters) {
      const auto blocks = expert_blocks(name, parameter, config);
      if (!blocks || blocks->layer != half.layer || blocks->kind != half.kind) continue;
      const int64_t width = parameter.size(blocks->axis) / blocks->count;
      auto part = parameter.detach().narrow(blocks->axis, expert * width, width);
      before_.emplace_back(part, part.clone());
      part.zero_();
    }
  }
  ~SilencedExpert() {
    for (auto& [part, values] : before_) part.copy_(values);
  }
  SilencedExpert(const SilencedExpert&) = delete;
  SilencedExpert& operator=(const SilencedExpert&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> before_;
};

std::optional<NonFiniteOrigin> search_forward(Transformer& model,
                                              const NamedTensors& parameters,
                                              const std::function<ModelOutput()>& pass) {
  const auto output = pass();
  const auto halves = suspects(output);
  if (halves.empty() && is_finite(output.logits)) return std::nullopt;
  const auto& config = model->config();
  for (const auto& half : halves) {
    const bool is_moe = std::string(half.kind) == "moe";
    const int64_t n_experts = is_moe ? config.ffn.n_experts : config.attention.n_experts;
    for (int64_t expert = 0; expert < n_experts; ++expert) {
      const SilencedExpert silenced(parameters, config, half, expert);
      if (!is_finite(pass().logits)) continue;
      return NonFiniteOrigin{.stage = "forward",
                             .tensor = {},
                             .layer = half.layer,
                             .kind = half.kind,
                             .expert = expert};
    }
  }
  NonFiniteOrigin origin{.stage = "forward", .tensor = {}, .layer = {}, .kind = {}, .expert = {}};
  if (!halves.empty()) origin.layer = halves.front().layer;
  return origin;
}

}  // namespace

std::string NonFiniteOrigin::to_string() const {
  std::string text = "first in the " + stage;
  if (stage == "forward") text += " pass";
  if (!tensor.empty()) text += fmt::format(" of '{}'", tensor);
  if (!layer) return text;
  text += fmt::format(" (layer {}", *layer);
  if (expert) text += fmt::format(", {} expert {}", kind, *expert);
  return text + ")";
}

std::optional<NonFiniteOrigin> locate_non_finite(Transformer& model,
                                                 const Batch& batch,
                                                 const RoutingPlan& plan,
                                                 const ForwardOptions& options) {
  const at::NoGradGuard no_grad;
  const auto parameters = named_parameters(*model);
  const auto& config = model->config();
  for (const auto& [name, parameter] : parameters) {
    // Working weights may be narrower.
    if (const auto index = first_non_finite(parameter.to(at::kFloat))) {
      return describe("weights", name, parameter, *index, config);
    }
  }
  const bool was_training = model->is_training();
  model->eval();
  auto with_logits = options;
  with_logits.logits = true;
  with_logits.document_positions = batch.document_positions;
  auto origin = search_forward(
      model, parameters, [&] { return model->forward(batch.tokens, plan, with_logits); });
  model->train(was_training);
  if (origin) return origin;
  for (auto it = parameters.rbegin(); it != parameters.rend(); ++it) {
    const auto& gradient = it->second.grad();
    if (!gradient.defined()) continue;
    if (const auto index = first_non_finite(gradient)) {
      return describe("gradients", it->first, gradient, *index, config);
    }
  }
  return std::nullopt;
}

}  // namespace dsmoe
