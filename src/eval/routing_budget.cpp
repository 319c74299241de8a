#include "eval/routing_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

using Layers = std::vector<LayerRouting>;

RoutingPolicy& policy_of(Layers& layers, size_t layer, bool is_moa) {
  return is_moa ? layers[layer].moa : layers[layer].moe;
}

Layers every_expert(const ModelConfig& config) {
  return Layers(static_cast<size_t>(config.n_layers), LayerRouting{});
}

bool fits(const RoutingPolicy& policy, int64_t n_experts) {
  return policy.selection != Selection::kAll &&
         (policy.selection != Selection::kTopK || policy.k < n_experts);
}

class Measure {
 public:
  Measure(Transformer& model, const EvalText& text, PerplexityOptions options)
      : model_(model), text_(text), options_(std::move(options)) {}

  // Of the experts it counts those of one layer and kind.
  BudgetChoice operator()(const RoutingPolicy& policy,
                          const RoutingPlan& plan,
                          size_t layer,
                          bool is_moa) {
    options_.plan = plan;
    const auto result = evaluate_perplexity(model_, text_, options_);
    if (!result.complete) throw StoppedError("budget: stopped as asked");
    const auto active = result.usage.active_experts();
    return {.policy = policy,
            .nats = result.nats_per_token(),
            .parameters = active_parameters(model_->config(), active),
            .experts = (is_moa ? active.moa : active.moe).at(layer)};
  }

 private:
  Transformer& model_;
  const EvalText& text_;
  PerplexityOptions options_;
};

double price(const BudgetChoice& from, const BudgetChoice& to) {
  return (to.nats - from.nats) / (from.parameters - to.parameters);
}

// Lower convex hull from the first choice, which uses every expert, to cheaper ones.
std::vector<BudgetChoice> hull_of(std::vector<BudgetChoice> choices) {
  std::stable_sort(choices.begin() + 1, choices.end(), [](const auto& a, const auto& b) {
    return a.parameters > b.parameters;
  });
  std::vector<BudgetChoice> hull = {choices.front()};
  for (size_t i = 1; i < choices.size(); ++i) {
    const auto& next = choices[i];
    if (next.parameters >= hull.back().parameters) continue;
    while (hull.size() > 1 &&
           price(hull[hull.size() - 2], hull.back()) >= price(hull.back(), next)) {
      hull.pop_back();
    }
    hull.push_back(next);
  }
  return hull;
}

// A candidate in one layer and kind.
struct SensitivityPass {
  size_t layer;
  bool is_moa;
  RoutingPolicy policy;
};

std::vector<SensitivityPass> sensitivity_passes(const ModelConfig& config,
                                                const std::vector<RoutingPolicy>& candidates) {
  std::vector<SensitivityPass> passes;
  for (size_t layer = 0; layer < static_cast<size_t>(config.n_layers); ++layer) {
    for (const bool is_moa : {false, true}) {
      const bool has_experts =
          is_moa ? config.attention.kind == AttentionKind::kMoa : config.has_ffn_experts();
      const int64_t n_experts = is_moa ? config.attention.n_experts : config.ffn.n_experts;
      for (const auto& policy : candidates) {
        if (has_experts && fits(policy, n_experts)) passes.push_back({layer, is_moa, policy});
      }
    }
  }
  return passes;
}

struct Move {
  const LayerChoices* layer;
  size_t to;  // index of its choice
  double price;
};

}  // namespace

int64_t n_sensitivity_passes(const ModelConfig& config,
                             const std::vector<RoutingPolicy>& candidates) {
  return static_cast<int64_t>(sensitivity_passes(config, candidates).size());
}

Sensitivity measure_sensitivity(Transformer& model,
                                const EvalText& text,
                                const std::vector<RoutingPolicy>& candidates,
                                const PerplexityOptions& options) {
  const auto& config = model->config();
  Measure measure(model, text, options);
  const auto execution = options.plan.layer(0).moe.execution;
  const auto passes = sensitivity_passes(config, candidates);
  if (passes.empty()) {
    throw Error(
        "budget: expected a model with experts and candidates that leave some out, got none");
  }
  const auto& first = passes.front();
  auto all = measure(RoutingPolicy::all(),
                     RoutingPlan(every_expert(config)).with(execution),
                     first.layer,
                     first.is_moa);
  Sensitivity sensitivity{.config = config,
                          .nats = all.nats,
                          .parameters = all.parameters,
                          .experts = {},
                          .layers = {}};
  for (const auto& pass : passes) {
    auto& layers = sensitivity.layers;
    if (layers.empty() || layers.back().layer != pass.layer ||
        layers.back().is_moa != pass.is_moa) {
      auto& experts = pass.is_moa ? sensitivity.experts.moa : sensitivity.experts.moe;
      all.experts =
          static_cast<double>(pass.is_moa ? config.attention.n_experts : config.ffn.n_experts);
      experts += all.experts;
      layers.push_back({.layer = pass.layer, .is_moa = pass.is_moa, .choices = {all}});
    }
    auto plan = every_expert(config);
    policy_of(plan, pass.layer, pass.is_moa) = pass.policy;
    layers.back().choices.push_back(measure(
        pass.policy, RoutingPlan(std::move(plan)).with(execution), pass.layer, pass.is_moa));
  }
  for (auto& layer : sensitivity.layers) layer.choices = hull_of(std::move(layer.choices));
  return sensitivity;
}

std::vector<BudgetPlan> plan_steps(const Sensitivity& sensitivity) {
  std::vector<Move> moves;
  for (const auto& layer : sensitivity.layers) {
    for (size_t i = 1; i < layer.choices.size(); ++i) {
      moves.push_back({&layer, i, price(layer.choices[i - 1], layer.choices[i])});
    }
  }
  // Within a layer prices rise along the hull, so its moves stay in order.
  std::stable_sort(
      moves.begin(), moves.end(), [](const Move& a, const Move& b) { return a.price < b.price; });
  auto layers = every_expert(sensitivity.config);
  std::vector<BudgetPlan> steps = {{.plan = RoutingPlan(layers),
                                    .nats = sensitivity.nats,
                                    .parameters = sensitivity.parameters,
                                    .experts = sensitivity.experts}};
  for (const auto& move : moves) {
    const auto& from = move.layer->choices[move.to - 1];
    const auto& to = move.layer->choices[move.to];
    policy_of(layers, move.layer->layer, move.layer->is_moa) = to.policy;
    auto step = steps.back();
    step.plan = RoutingPlan(layers);
    step.nats += to.nats - from.nats;
    step.parameters += to.parameters - from.parameters;
    (move.layer->is_moa ? step.experts.moa : step.experts.moe) += to.experts - from.experts;
    steps.push_back(std::move(step));
  }
  return steps;
}

const BudgetPlan& within_parameters(const std::vector<BudgetPlan>& steps, double parameters) {
  for (const auto& step : steps) {
    if (step.parameters <= parameters) return step;
  }
  throw Error(
      fmt::format("budget: expected at least {:.0f} active parameters, which remain with the "
                  "cheapest candidate everywhere, got {:.0f}",
                  std::ceil(steps.back().parameters),
                  parameters));
}

const BudgetPlan& within_nats(const std::vector<BudgetPlan>& steps,
                              double nats,
                              const std::function<double(const RoutingPlan&)>& measure) {
  size_t within = 0;  // steps[0] is: it gives up nothing
  size_t beyond = steps.size();
  while (beyond - within > 1) {
    const size_t middle = within + (beyond - within) / 2;
    (measure(steps[middle].plan) <= nats ? within : beyond) = middle;
  }
  return steps[within];
}

const BudgetPlan& within_time(const std::vector<BudgetPlan>& steps,
                              const TimeModel& time,
                              double ms) {
  for (const auto& step : steps) {
    if (time.ms(step.experts) <= ms) return step;
  }
  throw Error(fmt::format("budget: expected at least {:.4g} ms per token, got {:.4g}",
                          time.ms(steps.back().experts),
                          ms));
}

std::string plan_to_yaml(const RoutingPlan& plan, const ModelConfig& config) {
  std::string yaml = "layers:\n";
  for (size_t i = 0; i < static_cast<size_t>(config.n_layers); ++i) {
    const auto& routing = plan.layer(i);
    std::vector<std::string> kinds;
    if (config.has_ffn_experts())
      kinds.push_back(fmt::format("moe: \"{}\"", routing.moe.to_string()));
    if (config.attention.kind == AttentionKind::kMoa) {
      kinds.push_back(fmt::format("moa: \"{}\"", routing.moa.to_string()));
    }
    yaml += fmt::format("  - {{{}}}\n", fmt::join(kinds, ", "));
  }
  return yaml;
}

}  // namespace dsmoe
