#include "cli/expert_tables.h"
#include "common/standard_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMinCount = 10;  // of a rarer token's choices hardly anything can be said
constexpr size_t kTokensPerExpert = 8;
constexpr size_t kPairs = 3;

Json typical_to_json(const std::vector<TypicalToken>& tokens, const Tokenizer& tokenizer) {
  auto list = Json::array();
  for (const auto& token : tokens) {
    list.push_back({{"id", token.id},
                    {"text", tokenizer.decode({static_cast<int32_t>(token.id)})},
                    {"count", token.count},
                    {"lift", token.lift}});
  }
  return list;
}

Json layer_to_json(const ExpertStatistics& statistics,
                   const LayerSelections& layer,
                   const Tokenizer& tokenizer) {
  auto experts = Json::array();
  int64_t n_selected = 0;
  for (size_t i = 0; i < layer.together.size(); ++i) {
    const int64_t n = layer.together[i][i];
    n_selected += n;
    const auto typical = statistics.typical_tokens(layer, i, kTokensPerExpert, kMinCount);
    experts.push_back(
        {{"share", static_cast<double>(n) / static_cast<double>(statistics.n_tokens())},
         {"typical", typical_to_json(typical, tokenizer)}});
  }
  Json json = {{"co_activation", statistics.co_activation(layer)}, {"experts", experts}};
  if (statistics.tokens_of_groups().size() > 1 && n_selected > 0) {
    const auto [kl, mutual_information] = specialisation(layer);
    json["group_kl"] = kl;
    json["mutual_information"] = mutual_information;
  }
  return json;
}

std::string quoted(const Json& text) {
  return text.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void print_experts(const Json& experts) {
  for (size_t i = 0; i < experts.size(); ++i) {
    std::string line;
    for (const auto& token : experts[i]["typical"]) {
      const auto text = token["text"].get<std::string>();
      line += fmt::format(
          "  {} {:.2f}",
          text.empty() ? fmt::format("#{}", token["id"].get<int64_t>()) : quoted(token["text"]),
          token["lift"].get<double>());
    }
    print_out("  expert {:>3} {:>6.2f} %{}\n", i, 100 * experts[i]["share"].get<double>(), line);
  }
}

void print_pairs(const Json& lifts) {
  std::vector<std::tuple<double, size_t, size_t>> pairs;
  for (size_t i = 0; i < lifts.size(); ++i) {
    for (size_t j = i + 1; j < lifts.size(); ++j) {
      const auto lift = lifts[i][j].get<double>();
      if (lift == lift) pairs.emplace_back(lift, i, j);
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

Json expert_statistics_to_json(const ExpertStatistics& statistics,
                               const std::vector<std::string>& groups,
                               const Tokenizer& tokenizer) {
  auto counts = statistics.tokens_of_groups();
  counts.resize(groups.size(), 0);
  Json json = {{"groups", Json::array()}, {"min_count", kMinCount}};
  for (size_t i = 0; i < groups.size(); ++i) {
    json["groups"].push_back({{"data", groups[i]}, {"tokens", counts[i]}});
  }
  const auto add = [&](const char* kind, const std::vector<LayerSelections>& layers) {
    for (const auto& layer : layers) {
      json[kind].push_back(layer_to_json(statistics, layer, tokenizer));
    }
  };
  add("moe", statistics.moe());
  add("moa", statistics.moa());
  return json;
}

void print_expert_statistics(const Json& json) {
  print_out(
      "experts: share of the tokens, then the tokens most typical of each (of those seen {} "
      "times or more) with their lift\n",
      json["min_count"].get<int64_t>());
  for (const std::string kind : {"moe", "moa"}) {
    if (!json.contains(kind)) continue;
    for (size_t i = 0; i < json[kind].size(); ++i) {
      const auto& layer = json[kind][i];
      print_out("{} layer {}\n", kind, i);
      print_experts(layer["experts"]);
      print_pairs(layer["co_activation"]);
      if (!layer.contains("group_kl")) continue;
      print_out("  groups: mutual information {:.4g} nats; KL of a group's load from the whole",
                layer["mutual_information"].get<double>());
      for (size_t g = 0; g < layer["group_kl"].size(); ++g) {
        print_out(" | {} {:.4g}",
                  json["groups"][g]["data"].get<std::string>(),
                  layer["group_kl"][g].get<double>());
      }
      print_out("\n");
    }
  }
}

}  // namespace dsmoe
