#include "cli/expert_tables.h"
#include "common/standard_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMinCount = 10;  // of a rarer token's choices hardly anything can be said
constexpr size_t kTokensPerExpert = 8;
constexpr size_t kPairs = 3;

ExpertReport::Layer make_layer(const ExpertStatistics& statistics,
                               const LayerSelections& selections,
                               const Tokenizer& tokenizer) {
  ExpertReport::Layer layer{
      .co_activation = statistics.co_activation(selections), .experts = {}, .specialisation = {}};
  int64_t n_selected = 0;
  for (size_t i = 0; i < selections.together.size(); ++i) {
    const int64_t n = selections.together[i][i];
    n_selected += n;
    ExpertReport::Expert expert{
        .share = static_cast<double>(n) / static_cast<double>(statistics.n_tokens()),
        .typical = {}};
    for (const auto& token :
         statistics.typical_tokens(selections, i, kTokensPerExpert, kMinCount)) {
      expert.typical.push_back({token, tokenizer.decode({static_cast<int32_t>(token.id)})});
    }
    layer.experts.push_back(std::move(expert));
  }
  if (statistics.tokens_of_groups().size() > 1 && n_selected > 0) {
    layer.specialisation = specialisation(selections);
  }
  return layer;
}

Json to_json(const ExpertReport::Layer& layer) {
  auto experts = Json::array();
  for (const auto& expert : layer.experts) {
    auto typical = Json::array();
    for (const auto& [token, text] : expert.typical) {
      typical.push_back(
          {{"id", token.id}, {"text", text}, {"count", token.count}, {"lift", token.lift}});
    }
    experts.push_back({{"share", expert.share}, {"typical", typical}});
  }
  Json json = {{"co_activation", layer.co_activation}, {"experts", experts}};
  if (layer.specialisation) {
    json["group_kl"] = layer.specialisation->kl;
    json["mutual_information"] = layer.specialisation->mutual_information;
  }
  return json;
}

std::string quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void print_experts(const std::vector<ExpertReport::Expert>& experts) {
  for (size_t i = 0; i < experts.size(); ++i) {
    std::string line;
    for (const auto& [token, text] : experts[i].typical) {
      line += fmt::format(
          "  {} {:.2f}", text.empty() ? fmt::format("#{}", token.id) : quoted(text), token.lift);
    }
    print_out("  expert {:>3} {:>6.2f} %{}\n", i, 100 * experts[i].share, line);
  }
}

void print_pairs(const std::vector<std::vector<double>>& lifts) {
  std::vector<std::tuple<double, size_t, size_t>> pairs;
  for (size_t i = 0; i < lifts.size(); ++i) {
    for (size_t j = i + 1; j < lifts.size(); ++j) {
      if (!std::isnan(lifts[i][j])) pairs.emplace_back(lifts[i][j], i, j);
    }
  }
  if (pairs.empty()) return;
  std::sort(pairs.begin(), pairs.end());
  const size_t n = std::min(kPairs, pairs.size());
  const auto show = [](const auto& pair) {
    return fmt::format(" {}+{} {:.2f}", std::get<1>(pair), std::get<2>(pair), std::get<0>(pair));
  };
  std::string most, least;
  for (size_t i = 0; i < n; ++i) {
    most += show(pairs[pairs.size() - 1 - i]);
    least += show(pairs[i]);
  }
  print_out("  together, against chance: most{} | least{}\n", most, least);
}

}  // namespace

ExpertReport make_expert_report(const ExpertStatistics& statistics,
                                const std::vector<std::string>& groups,
                                const Tokenizer& tokenizer) {
  ExpertReport report;
  auto counts = statistics.tokens_of_groups();
  counts.resize(groups.size(), 0);
  for (size_t i = 0; i < groups.size(); ++i) report.groups.push_back({groups[i], counts[i]});
  const auto add = [&](std::vector<ExpertReport::Layer>& to,
                       const std::vector<LayerSelections>& layers) {
    for (const auto& layer : layers) to.push_back(make_layer(statistics, layer, tokenizer));
  };
  add(report.moe, statistics.moe());
  add(report.moa, statistics.moa());
  return report;
}

Json to_json(const ExpertReport& report) {
  Json json = {{"groups", Json::array()}, {"min_count", kMinCount}};
  for (const auto& [data, tokens] : report.groups) {
    json["groups"].push_back({{"data", data}, {"tokens", tokens}});
  }
  const auto add = [&](const char* kind, const std::vector<ExpertReport::Layer>& layers) {
    for (const auto& layer : layers) json[kind].push_back(to_json(layer));
  };
  add("moe", report.moe);
  add("moa", report.moa);
  return json;
}

void print_text(const ExpertReport& report) {
  print_out(
      "experts: share of the tokens, then the tokens most typical of each (of those seen {} "
      "times or more) with their lift\n",
      kMinCount);
  const auto print_layers = [&](const char* kind, const std::vector<ExpertReport::Layer>& layers) {
    for (size_t i = 0; i < layers.size(); ++i) {
      print_out("{} layer {}\n", kind, i);
      print_experts(layers[i].experts);
      print_pairs(layers[i].co_activation);
      if (!layers[i].specialisation) continue;
      const auto& [kl, mutual_information] = *layers[i].specialisation;
      print_out("  groups: mutual information {:.4g} nats; KL of a group's load from the whole",
                mutual_information);
      for (size_t group = 0; group < kl.size(); ++group) {
        print_out(" | {} {:.4g}", report.groups[group].data, kl[group]);
      }
      print_out("\n");
    }
  };
  print_layers("moe", report.moe);
  print_layers("moa", report.moa);
}

}  // namespace dsmoe
