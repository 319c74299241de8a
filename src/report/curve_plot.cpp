#include "report/curve_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/plot.h"

namespace dsmoe {
namespace {

constexpr const char* kDenseAttention = ";moa:all";
constexpr const char* kFfnKind = "moe:";

struct SplitPolicy {
  std::string family;
  std::vector<std::string> numbers;  // that vary along the family
};

bool is_number_part(char c) {
  return (c >= '0' && c <= '9') || c == '.' || c == 'e' || c == '-' || c == '+';
}

// Numbers after the first `=` of each kind vary; a cap `,max=6` does not.
SplitPolicy split_policy(const std::string& policy) {
  SplitPolicy split;
  bool is_first_of_kind = true;
  for (size_t i = 0; i < policy.size(); ++i) {
    if (policy[i] == ';') is_first_of_kind = true;
    if (policy[i] != '=' || !is_first_of_kind) {
      split.family += policy[i];
      continue;
    }
    is_first_of_kind = false;
    auto& number = split.numbers.emplace_back();
    while (i + 1 < policy.size() && is_number_part(policy[i + 1])) number += policy[++i];
  }
  if (split.family.starts_with(kFfnKind) && split.family.ends_with(kDenseAttention)) {
    const size_t begin = std::string(kFfnKind).size();
    const size_t size = split.family.size() - begin - std::string(kDenseAttention).size();
    split.family = split.family.substr(begin, size);
  }
  return split;
}

}  // namespace

std::string policy_family(const std::string& policy) { return split_policy(policy).family; }

std::string curve_to_svg(const std::vector<PolicyPoint>& points) {
  auto sorted = points;
  std::stable_sort(sorted.begin(), sorted.end(), [](const PolicyPoint& a, const PolicyPoint& b) {
    return a.share < b.share;
  });
  std::vector<PlotSeries> series;
  for (const auto& point : sorted) {
    if (point.policy == "all") continue;
    const auto split = split_policy(point.policy);
    auto its = std::find_if(series.begin(), series.end(), [&](const PlotSeries& one) {
      return one.name == split.family;
    });
    if (its == series.end()) {
      its = series.insert(series.end(), {.name = split.family, .x = {}, .y = {}});
    }
    its->x.push_back(100 * point.share);
    its->y.push_back(point.perplexity);
    its->labels.push_back(
        fmt::format("{}: {:.1f} %, {:.4f}", point.policy, 100 * point.share, point.perplexity));
    its->texts.push_back(fmt::format("{}", fmt::join(split.numbers, ", ")));
  }
  const auto all = std::find_if(
      sorted.begin(), sorted.end(), [](const PolicyPoint& point) { return point.policy == "all"; });
  if (all != sorted.end()) {
    auto& line = series.emplace_back();
    line.name = fmt::format("all: {:.4f}", all->perplexity);
    line.x = {100 * all->share};
    line.y = {all->perplexity};
    line.is_scatter = sorted.size() == 1;
    if (!line.is_scatter) {
      line.x.insert(line.x.begin(), 100 * sorted.front().share);
      line.y.push_back(all->perplexity);
    }
  }
  return plot_to_svg(series,
                     {.title = "Perplexity against active parameters",
                      .x_label = "active share of parameters that are not embeddings, %",
                      .y_label = "perplexity"});
}

}  // namespace dsmoe
