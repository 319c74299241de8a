#include "eval/curve.h"

#include <algorithm>
#include <utility>

#include "model/flops.h"
#include "model/parameter_count.h"

namespace dsmoe {

std::vector<RoutingPlan> curve_plans(const ModelConfig& config) {
  const bool has_moe = config.ffn.kind != FfnKind::kDense;
  const bool has_moa = config.attention.kind == AttentionKind::kMoa;
  std::vector<RoutingPlan> plans = {RoutingPolicy::all()};
  if (!has_moe && !has_moa) return plans;
  const int64_t n_experts = has_moe ? config.ffn.n_experts : config.attention.n_experts;
  for (int64_t k = 1; k < n_experts; k *= 2) {
    LayerRouting routing{.moa = RoutingPolicy::all(), .moe = RoutingPolicy::all()};
    (has_moe ? routing.moe : routing.moa) = RoutingPolicy::top_k(k);
    plans.emplace_back(routing);
  }
  for (const double threshold : {0.3, 0.4, 0.5, 0.6, 0.8}) {
    plans.emplace_back(RoutingPolicy::threshold(threshold));
  }
  return plans;
}

namespace {

void set_rises(std::vector<CurvePoint>& points) {
  const RoutingPlan all = RoutingPolicy::all();
  const auto is_all = [&](const CurvePoint& point) {
    return point.plan.with(Execution::kAuto) == all;
  };
  const auto reference = std::find_if(points.begin(), points.end(), is_all);
  if (reference == points.end()) return;
  for (auto& point : points) {
    point.rise = point.quality.perplexity() / reference->quality.perplexity() - 1;
  }
}

}  // namespace

std::vector<CurvePoint> measure_curve(
    Transformer& model,
    const EvalText& text,
    const std::vector<RoutingPlan>& plans,
    PerplexityOptions options,
    const std::function<void(const CurvePoint& point)>& on_point) {
  const auto& config = model->config();
  const int64_t window = options.window > 0 ? options.window : config.max_seq_len;
  std::vector<CurvePoint> points;
  for (const auto& plan : plans) {
    options.plan = plan;
    CurvePoint point{.plan = plan, .quality = evaluate_perplexity(model, text, options)};
    if (!point.quality.complete) break;
    const auto active = point.quality.usage.active_experts();
    point.active_parameters = active_parameters(config, active);
    point.share =
        point.active_parameters / static_cast<double>(count_parameters(config).non_embedding());
    point.flops_per_token =
        forward_flops_per_token(config, active, static_cast<double>(window) / 2.0);
    point.ms_per_token =
        1e3 * point.quality.seconds / static_cast<double>(point.quality.tokens_scored);
    points.push_back(std::move(point));
    set_rises(points);
    if (on_point) on_point(points.back());
  }
  return points;
}

}  // namespace dsmoe
