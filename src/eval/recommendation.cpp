#include "eval/recommendation.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/stop_signal.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

constexpr int kRefinements = 3;

bool has_moa(const ModelConfig& config) { return config.attention.kind == AttentionKind::kMoa; }

// Policies of one kind, ordered from most to fewest experts by one value.
struct Family {
  std::vector<double> values;
  double dense_value = 0;  // of the policy that selects every expert
  RoutingPlan (*plan)(double value, const ModelConfig& config) = nullptr;
  // A value strictly between two; none: there is none that is worth measuring.
  std::optional<double> (*between)(double within, double beyond) = nullptr;
};

Family thresholds(const ModelConfig& config) {
  Family family{
      .values = {0.2, 0.4, 0.6, 0.8},
      .plan = [](double value,
                 const ModelConfig&) { return RoutingPlan(RoutingPolicy::threshold(value)); },
      .between = [](double within, double beyond) -> std::optional<double> {
        const double middle = std::round(50 * (within + beyond)) / 100;
        if (middle <= within || middle >= beyond) return std::nullopt;
        return middle;
      }};
  const bool has_sigmoid_gates = config.ffn.kind == FfnKind::kPartitioned &&
                                 config.ffn.partition.gates == RouterActivation::kSigmoid;
  if (!has_sigmoid_gates) family.values.push_back(1.2);
  return family;
}

Family top_ks(const ModelConfig& config) {
  const int64_t n_experts =
      config.has_ffn_experts() ? config.ffn.n_experts : config.attention.n_experts;
  Family family{.values = {},
                .dense_value = static_cast<double>(n_experts),
                .plan =
                    [](double value, const ModelConfig& its_config) {
                      LayerRouting routing;
                      auto& policy = its_config.has_ffn_experts() ? routing.moe : routing.moa;
                      policy = RoutingPolicy::top_k(static_cast<int64_t>(value));
                      return RoutingPlan(routing);
                    },
                .between = [](double within, double beyond) -> std::optional<double> {
                  const double middle = std::floor((within + beyond) / 2);
                  if (middle >= within || middle <= beyond) return std::nullopt;
                  return middle;
                }};
  for (int64_t k = 1; k < n_experts; k *= 2) {
    family.values.insert(family.values.begin(), static_cast<double>(k));
  }
  return family;
}

class Search {
 public:
  Search(Transformer& model,
         const EvalText& text,
         const RecommendOptions& options,
         int64_t most_policies)
      : model_(model), text_(text), options_(options), most_policies_(most_policies) {
    int64_t n_tokens = 0;
    for (const auto& sequence : text.sequences) n_tokens += static_cast<int64_t>(sequence.size());
    n_parts_ = std::max<int64_t>(n_tokens / std::max<int64_t>(options.tokens, 1), 1);
  }

  const PolicyQuality& measure(const RoutingPlan& plan) {
    for (const auto& one : measured_) {
      if (one.plan == plan) return one;
    }
    const auto n_before = static_cast<int64_t>(measured_.size());
    PerplexityOptions how{.batch = options_.batch,
                          .plan = plan.with(options_.execution),
                          .compute_dtype = options_.compute_dtype,
                          .part = 0,
                          .n_parts = n_parts_,
                          .stop = options_.stop};
    if (options_.on_progress) {
      how.on_progress = [&](int64_t done, int64_t all) {
        options_.on_progress(n_before * all + done, std::max(most_policies_, n_before + 1) * all);
      };
    }
    const auto result = evaluate_perplexity(model_, text_, how);
    if (!result.complete) throw StoppedError("recommend: stopped as asked");
    if (result.tokens_scored == 0) {
      throw Error("evaluation text: expected at least one token after the first, got none");
    }
    tokens_scored_ = result.tokens_scored;
    const auto& config = model_->config();
    const double parameters = active_parameters(config, result.usage.active_experts());
    measured_.push_back(
        {.plan = plan,
         .perplexity = result.perplexity(),
         .active_parameters = parameters,
         .share = parameters / static_cast<double>(count_parameters(config).non_embedding())});
    return measured_.back();
  }

  // The last value within the limit and, refined, those between it and the next one.
  void measure_family(const Family& family, double limit) {
    const auto& config = model_->config();
    const auto is_within = [&](double value) {
      return measure(family.plan(value, config)).perplexity <= limit;
    };
    double within = family.dense_value;
    std::optional<double> beyond;
    for (const double value : family.values) {
      if (is_within(value)) {
        within = value;
        beyond.reset();
      } else if (!beyond) {
        beyond = value;
      }
    }
    for (int i = 0; beyond && i < kRefinements; ++i) {
      const auto middle = family.between(within, *beyond);
      if (!middle) return;
      (is_within(*middle) ? within : *beyond) = *middle;
    }
  }

  std::vector<PolicyQuality> take_measured() { return std::move(measured_); }
  int64_t tokens_scored() const { return tokens_scored_; }

 private:
  Transformer& model_;
  const EvalText& text_;
  const RecommendOptions& options_;
  int64_t most_policies_;
  int64_t n_parts_ = 1;
  std::vector<PolicyQuality> measured_;
  int64_t tokens_scored_ = 0;
};

}  // namespace

Recommendation recommend_policy(Transformer& model,
                                const EvalText& text,
                                const RecommendOptions& options) {
  const auto& config = model->config();
  if (!config.has_ffn_experts() && !has_moa(config)) {
    throw Error("recommend: expected a model with experts, got a dense one");
  }
  const std::vector<Family> families = {thresholds(config), top_ks(config)};
  int64_t most_policies = 2;
  for (const auto& family : families) {
    most_policies += static_cast<int64_t>(family.values.size()) + kRefinements;
  }
  Search search(model, text, options, most_policies);
  auto reference = search.measure(RoutingPolicy::all());
  const auto& trained = search.measure(parse_routing_plan(config.training_policy));
  if (trained.perplexity < reference.perplexity) reference = trained;
  const double limit = reference.perplexity * (1 + options.rise);
  for (const auto& family : families) search.measure_family(family, limit);
  Recommendation found{.chosen = reference,
                       .reference = reference,
                       .measured = search.take_measured(),
                       .tokens_scored = search.tokens_scored()};
  std::stable_sort(found.measured.begin(), found.measured.end(), [](const auto& a, const auto& b) {
    return a.active_parameters > b.active_parameters;
  });
  for (auto& one : found.measured) {
    one.rise = one.perplexity / reference.perplexity - 1;
    const bool is_cheaper = one.active_parameters < found.chosen.active_parameters;
    if (one.perplexity <= limit && is_cheaper) found.chosen = one;
  }
  return found;
}

}  // namespace dsmoe
