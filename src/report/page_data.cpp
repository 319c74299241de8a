#include "report/page_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;

// Of all runs together; about six bytes a value.
constexpr size_t kMaxRows = 2400;
constexpr size_t kMaxLayerValues = 60000;
constexpr size_t kMaxCells = 24000;
constexpr size_t kMaxCellsOfRun = 6000;  // what a browser draws at once

constexpr std::pair<const char*, const char*> kKinds[] = {{"moe_routing", "FFN experts"},
                                                          {"moa_routing", "attention experts"}};

// Five digits: as many as a plot shows.
Json rounded_json(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr);
}

Json rounded_list(const std::vector<double>& values) {
  auto list = Json::array();
  for (const double value : values) list.push_back(rounded_json(value));
  return list;
}

// Where a run is at each of its logged steps, and between them.
struct Progress {
  std::vector<double> step;
  std::vector<double> tokens;
  std::vector<double> seconds;

  double at(const std::vector<double>& values, double wanted) const {
    const auto next = std::lower_bound(step.begin(), step.end(), wanted);
    if (next == step.end()) return values.empty() ? 0 : values.back();
    const auto i = static_cast<size_t>(next - step.begin());
    const double step_before = i == 0 ? 0 : step[i - 1];
    const double before = i == 0 ? 0 : values[i - 1];
    const double share =
        step[i] > step_before ? (wanted - step_before) / (step[i] - step_before) : 1;
    return before + share * (values[i] - before);
  }
};

Progress progress_of(const RunRecord& run) {
  Progress progress;
  double tokens_before = 0;
  double seconds = 0;
  for (const auto& line : run.steps) {
    const double tokens = number_of(line, "tokens");
    const double speed = number_of(line, "tokens_per_second");
    if (const double given = number_of(line, "seconds"); std::isfinite(given)) {
      seconds = given;
    } else if (speed > 0 && std::isfinite(tokens)) {
      seconds += (tokens - tokens_before) / speed;
    }
    progress.step.push_back(number_of(line, "step"));
    progress.tokens.push_back(std::isfinite(tokens) ? tokens : tokens_before);
    progress.seconds.push_back(seconds);
    tokens_before = progress.tokens.back();
  }
  return progress;
}

Json places(const Progress& progress, const std::vector<double>& steps) {
  Json x;
  const auto add = [&](const char* name, const std::vector<double>& values) {
    auto& list = x[name] = Json::array();
    for (const double step : steps) list.push_back(rounded_json(progress.at(values, step)));
  };
  add("step", progress.step);
  add("tokens", progress.tokens);
  add("seconds", progress.seconds);
  return x;
}

// The lines that are drawn, in order: of each stretch those with the lowest and the highest value
// of both keys, so that no spike is lost.
std::vector<size_t> choose_rows(const std::vector<nlohmann::json>& lines, size_t n_rows) {
  std::set<size_t> rows;
  if (lines.size() <= n_rows) {
    for (size_t i = 0; i < lines.size(); ++i) rows.insert(i);
    return {rows.begin(), rows.end()};
  }
  const size_t n_stretches = std::max<size_t>(n_rows / 4, 1);
  for (size_t stretch = 0; stretch < n_stretches; ++stretch) {
    const size_t begin = stretch * lines.size() / n_stretches;
    const size_t end = (stretch + 1) * lines.size() / n_stretches;
    for (const char* key : {"lm_loss", "gradient_norm"}) {
      size_t low = begin;
      size_t high = begin;
      for (size_t i = begin; i < end; ++i) {
        if (number_of(lines[i], key) < number_of(lines[low], key)) low = i;
        if (number_of(lines[i], key) > number_of(lines[high], key)) high = i;
      }
      rows.insert({low, high});
    }
  }
  rows.insert(lines.size() - 1);
  return {rows.begin(), rows.end()};
}

std::vector<double> steps_of(const std::vector<nlohmann::json>& lines,
                             const std::vector<size_t>& rows) {
  std::vector<double> steps;
  for (const size_t row : rows) steps.push_back(number_of(lines[row], "step"));
  return steps;
}

double memory_gib(const nlohmann::json& line) {
  const double on_device = number_of(line, "device_memory_bytes");
  return (std::isfinite(on_device) ? on_device : number_of(line, "peak_memory_bytes")) / (1 << 30);
}

void add_series(Json& json, const RunRecord& run, const std::vector<size_t>& rows) {
  const auto collect = [&](const auto& value_of) {
    std::vector<double> values;
    for (const size_t row : rows) values.push_back(value_of(run.steps[row]));
    return rounded_list(values);
  };
  for (const char* key :
       {"lm_loss", "learning_rate", "gradient_norm", "tokens_per_second", "flops_per_second"}) {
    json["series"][key] = collect([&](const auto& line) { return number_of(line, key); });
  }
  json["series"]["memory_gib"] = collect(memory_gib);

  json["terms"] = Json::object();
  json["shares"] = Json::object();
  const auto weight_of = [](const nlohmann::json& line, const std::string& key) {
    const auto found = line.find("loss_weights");
    return found == line.end() ? std::nan("") : number_of(*found, key);
  };
  const auto& last = run.steps.back();
  const auto weights = last.value("loss_weights", nlohmann::json::object());
  for (const auto& [key, weight] : weights.items()) {
    if (!weight.is_number() || weight == 0.0 || key == "lm_loss") continue;
    json["terms"][key] = collect([&, name = key](const auto& line) {
      return number_of(line, name) * weight_of(line, name);
    });
  }
  const auto bounds = last.value("loss_bounds", nlohmann::json::object());
  for (const auto& [key, bound] : bounds.items()) {
    const double lowest = bound.is_number() ? bound.get<double>() : std::nan("");
    json["shares"][key] =
        collect([&, name = key](const auto& line) { return number_of(line, name) / lowest; });
  }
}

const nlohmann::json* list_in(const nlohmann::json& line, const char* kind, const char* key) {
  const auto found = line.find(kind);
  if (found == line.end() || !found->is_object() || !found->contains(key)) return nullptr;
  return &(*found)[key];
}

// One plot per kind of experts and number, one line per layer.
Json layers_of(const RunRecord& run, const std::vector<size_t>& rows, size_t n_values) {
  constexpr std::pair<const char*, const char*> kNumbers[] = {
      {"mutual_information", "Mutual information"},
      {"token_entropy", "Entropy of a token's router"}};
  const auto progress = progress_of(run);
  auto plots = Json::array();
  size_t n_lines = 0;
  for (const auto& [kind, name] : kKinds) {
    const auto* values = list_in(run.steps.back(), kind, "mutual_information");
    n_lines += values != nullptr ? 2 * values->size() : 0;
  }
  if (n_lines == 0) return plots;
  const size_t n_rows = std::clamp<size_t>(n_values / n_lines, 20, rows.size() + 20);
  std::vector<size_t> chosen;
  const size_t n_chosen = std::min(rows.size(), n_rows);
  for (size_t i = 0; i < n_chosen; ++i)
    chosen.push_back(rows[(i + 1) * rows.size() / n_chosen - 1]);
  const auto x = places(progress, steps_of(run.steps, chosen));
  for (const auto& [kind, kind_name] : kKinds) {
    for (const auto& [key, title] : kNumbers) {
      const auto* last = list_in(run.steps.back(), kind, key);
      if (last == nullptr) continue;
      auto layers = Json::array();
      for (size_t layer = 0; layer < last->size(); ++layer) {
        std::vector<double> values;
        for (const size_t row : chosen) {
          const auto* list = list_in(run.steps[row], kind, key);
          const bool has = list != nullptr && layer < list->size() && (*list)[layer].is_number();
          values.push_back(has ? (*list)[layer].get<double>() : std::nan(""));
        }
        layers.push_back(rounded_list(values));
      }
      plots.push_back({{"title", fmt::format("{}, {}", title, kind_name)},
                       {"unit", "nats"},
                       {"x", x},
                       {"layers", std::move(layers)}});
    }
  }
  return plots;
}

// Load of each expert at some logged steps, one map per layer.
Json loads_of(const RunRecord& run, size_t n_cells) {
  auto maps = Json::array();
  const auto progress = progress_of(run);
  size_t n_rows = 0;
  for (const auto& [kind, name] : kKinds) {
    const auto* load = list_in(run.steps.back(), kind, "load");
    if (load == nullptr) continue;
    for (const auto& layer : *load) n_rows += layer.size();
  }
  if (n_rows == 0) return maps;
  const size_t n_columns = std::clamp<size_t>(n_cells / n_rows, 4, 100);
  for (const auto& [kind, kind_name] : kKinds) {
    std::vector<size_t> lines;
    for (size_t i = 0; i < run.steps.size(); ++i) {
      if (list_in(run.steps[i], kind, "load") != nullptr) lines.push_back(i);
    }
    if (lines.empty()) continue;
    std::vector<size_t> columns;
    const size_t n = std::min(n_columns, lines.size());
    for (size_t i = 0; i < n; ++i) columns.push_back(lines[(i + 1) * lines.size() / n - 1]);
    const auto x = places(progress, steps_of(run.steps, columns));
    const auto& last = *list_in(run.steps[columns.back()], kind, "load");
    for (size_t layer = 0; layer < last.size(); ++layer) {
      auto rows = Json::array();
      for (size_t expert = 0; expert < last[layer].size(); ++expert) {
        auto& row = rows.emplace_back(Json::array());
        for (const size_t column : columns) {
          const auto& load = *list_in(run.steps[column], kind, "load");
          const bool has =
              layer < load.size() && expert < load[layer].size() && load[layer][expert].is_number();
          row.push_back(has ? std::round(1e3 * load[layer][expert].get<double>()) / 1e3 : 0.0);
        }
      }
      maps.push_back({{"title", fmt::format("Load of {}, layer {}", kind_name, layer)},
                      {"x", x},
                      {"rows", std::move(rows)}});
    }
  }
  return maps;
}

// A run of before validate_policies has one policy without a name.
Json validation_of(const RunRecord& run) {
  Json json = Json::object();
  if (run.validations.empty()) return json;
  std::vector<double> steps;
  for (const auto& line : run.validations) steps.push_back(number_of(line, "step"));
  json["x"] = places(progress_of(run), steps);
  std::vector<std::string> names;
  for (const auto& line : run.validations) {
    for (const auto& one : line.value("policies", nlohmann::json::array())) {
      const auto name = one.value("policy", "");
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  auto& policies = json["policies"] = Json::array();
  if (names.empty()) {
    std::vector<double> losses;
    for (const auto& line : run.validations) losses.push_back(number_of(line, "validation_loss"));
    policies.push_back({{"policy", "training selection"}, {"loss", rounded_list(losses)}});
  }
  for (const auto& name : names) {
    std::vector<double> losses;
    std::vector<double> bits;
    double share = std::nan("");
    for (const auto& line : run.validations) {
      losses.push_back(std::nan(""));
      bits.push_back(std::nan(""));
      for (const auto& one : line.value("policies", nlohmann::json::array())) {
        if (one.value("policy", "") != name) continue;
        losses.back() = number_of(one, "loss");
        bits.back() = number_of(one, "bits_per_byte");
        share = 100 * number_of(one, "active_share");
      }
    }
    policies.push_back({{"policy", name},
                        {"loss", rounded_list(losses)},
                        {"bits", rounded_list(bits)},
                        {"share", rounded_json(share)}});
  }
  return json;
}

// The paper's figure: active experts per token, layer by layer.
Json active_of(const RunRecord& run) {
  auto kinds = Json::array();
  if (run.validations.empty()) return kinds;
  const auto& last = run.validations.back();
  const auto add = [&](const std::string& policy, const nlohmann::json& experts) {
    for (const auto& [kind, name] :
         {std::pair{"moe", "FFN experts"}, {"moa", "attention experts"}}) {
      if (!experts.is_object() || !experts.contains(kind)) continue;
      std::vector<double> active;
      for (const auto& layer : experts[kind]) active.push_back(number_of(layer, "active"));
      kinds.push_back({{"name", policy.empty() ? name : fmt::format("{}, {}", name, policy)},
                       {"y", rounded_list(active)}});
    }
  };
  if (!last.contains("policies")) {
    add("", last.value("experts", nlohmann::json()));
    return kinds;
  }
  for (const auto& one : last["policies"]) {
    add(one.value("policy", ""), one.value("experts", nlohmann::json()));
  }
  return kinds;
}

Json curve_of(const nlohmann::json& curve) {
  Json json = {{"x", Json::array()}, {"y", Json::array()}, {"labels", Json::array()}};
  for (const auto& point : curve["points"]) {
    json["x"].push_back(rounded_json(100 * number_of(point, "active_parameters") /
                                     number_of(point, "non_embedding_parameters")));
    json["y"].push_back(rounded_json(number_of(point, "perplexity")));
    json["labels"].push_back(point.value("policy", ""));
  }
  return json;
}

}  // namespace

double number_of(const nlohmann::json& line, const std::string& key) {
  if (!line.is_object()) return std::numeric_limits<double>::quiet_NaN();
  const auto it = line.find(key);
  return it != line.end() && it->is_number() ? it->get<double>()
                                             : std::numeric_limits<double>::quiet_NaN();
}

double wall_seconds(const RunRecord& run) {
  const auto progress = progress_of(run);
  double seconds = progress.seconds.empty() ? std::nan("") : progress.seconds.back();
  for (const auto* lines : {&run.validations, &run.events}) {
    if (lines->empty()) continue;
    if (const double given = number_of(lines->back(), "seconds"); given > seconds) seconds = given;
  }
  return seconds;
}

nlohmann::ordered_json page_data(const std::vector<RunRecord>& runs, const nlohmann::json& curve) {
  Json data = {{"runs", Json::array()}};
  const size_t n_runs = std::max<size_t>(runs.size(), 1);
  for (const auto& run : runs) {
    const auto rows = choose_rows(run.steps, std::clamp<size_t>(kMaxRows / n_runs, 60, 800));
    Json json = {{"name", run.name}, {"x", places(progress_of(run), steps_of(run.steps, rows))}};
    add_series(json, run, rows);
    json["layers"] = layers_of(run, rows, kMaxLayerValues / n_runs);
    json["loads"] = loads_of(run, std::min(kMaxCells / n_runs, kMaxCellsOfRun));
    json["validation"] = validation_of(run);
    json["active"] = active_of(run);
    data["runs"].push_back(std::move(json));
  }
  if (curve.is_object() && curve.contains("points")) data["curve"] = curve_of(curve);
  return data;
}

}  // namespace dsmoe
