#include "report/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "report/plot.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxCells = 6000;  // of all heat maps of a run: about 0.6 MB
constexpr size_t kMaxEvents = 100;
constexpr const char* kKinds[] = {"moe_routing", "moa_routing"};

constexpr const char* kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>dsmoe runs</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 84rem;
       background: Canvas; color: CanvasText; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .7rem; }
summary { cursor: pointer; }
.sample { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 30rem; overflow-y: auto; }
</style></head><body>
)";

double number(const nlohmann::json& line, const std::string& key) {
  const auto it = line.find(key);
  return it != line.end() && it->is_number() ? it->get<double>()
                                             : std::numeric_limits<double>::quiet_NaN();
}

PlotSeries series_of(const std::string& name,
                     const std::vector<nlohmann::json>& lines,
                     const std::string& key) {
  PlotSeries series{.name = name, .x = {}, .y = {}};
  for (const auto& line : lines) {
    series.x.push_back(number(line, "step"));
    series.y.push_back(number(line, key));
  }
  return series;
}

std::string plot_of_all(const std::vector<RunRecord>& runs,
                        const std::string& title,
                        const std::string& key,
                        const std::string& unit,
                        bool is_log = false) {
  std::vector<PlotSeries> all;
  for (const auto& run : runs) all.push_back(series_of(run.name, run.steps, key));
  return plot_to_svg(all, {.title = title, .x_label = "step", .y_label = unit, .log_y = is_log});
}

std::string loss_plot(const std::vector<RunRecord>& runs) {
  std::vector<PlotSeries> all;
  for (const auto& run : runs) {
    all.push_back(series_of(run.name + " training", run.steps, "lm_loss"));
    all.push_back(series_of(run.name + " validation", run.validations, "validation_loss"));
    // Points too: a run may have been validated once only.
    all.back().labels.resize(all.back().x.size());
  }
  return plot_to_svg(
      all, {.title = "Language-model loss", .x_label = "step", .y_label = "nats per token"});
}

double last_of(const std::vector<nlohmann::json>& lines, const std::string& key) {
  return lines.empty() ? std::numeric_limits<double>::quiet_NaN() : number(lines.back(), key);
}

double median_of(const std::vector<nlohmann::json>& lines, const std::string& key) {
  std::vector<double> values;
  for (const auto& line : lines) {
    if (const double value = number(line, key); std::isfinite(value)) values.push_back(value);
  }
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::nth_element(values.begin(),
                   values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

std::string table_of(const std::vector<RunRecord>& runs) {
  std::string html =
      "<div class=\"wide\"><table><tr><th>run</th><th>steps</th><th>tokens</th><th>training "
      "loss</th>"
      "<th>validation loss</th><th>perplexity</th><th>tokens/s, median</th><th>MFU</th>"
      "<th>peak memory, MiB</th></tr>\n";
  const auto text = [](double value, const char* format) {
    return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : std::string("-");
  };
  for (const auto& run : runs) {
    const double validation = last_of(run.validations, "validation_loss");
    html += "<tr><td>" + escape_html(run.name) + "</td>";
    for (const auto& cell : {text(last_of(run.steps, "step"), "{:.0f}"),
                             text(last_of(run.steps, "tokens"), "{:.0f}"),
                             text(last_of(run.steps, "lm_loss"), "{:.4f}"),
                             text(validation, "{:.4f}"),
                             text(std::exp(validation), "{:.4f}"),
                             text(median_of(run.steps, "tokens_per_second"), "{:.0f}"),
                             text(100 * median_of(run.steps, "mfu"), "{:.0f} %"),
                             text(last_of(run.steps, "peak_memory_bytes") / (1 << 20), "{:.0f}")}) {
      html += "<td>" + cell + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

// Load of each expert by layer, in each of at most n_columns of the lines.
using LoadMap = std::vector<std::vector<double>>;

std::vector<LoadMap> load_maps(const RunRecord& run, const std::string& kind, size_t n_columns) {
  std::vector<LoadMap> layers;
  std::vector<const nlohmann::json*> lines;
  for (const auto& line : run.steps) {
    if (line.contains(kind) && line[kind].contains("load")) lines.push_back(&line);
  }
  n_columns = std::min(n_columns, lines.size());
  for (size_t column = 0; column < n_columns; ++column) {
    const auto& line = *lines[(column + 1) * lines.size() / n_columns - 1];
    const auto load = line[kind]["load"].get<std::vector<std::vector<double>>>();
    layers.resize(std::max(layers.size(), load.size()));
    for (size_t layer = 0; layer < load.size(); ++layer) {
      layers[layer].resize(std::max(layers[layer].size(), load[layer].size()));
      for (size_t expert = 0; expert < load[layer].size(); ++expert) {
        layers[layer][expert].push_back(load[layer][expert]);
      }
    }
  }
  return layers;
}

size_t count_rows(const RunRecord& run) {
  size_t rows = 0;
  if (run.steps.empty()) return rows;
  for (const auto* kind : kKinds) {
    const auto& line = run.steps.back();
    if (!line.contains(kind) || !line[kind].contains("load")) continue;
    for (const auto& layer : line[kind]["load"]) rows += layer.size();
  }
  return rows;
}

std::string name_of(const std::string& kind) {
  return kind == "moe_routing" ? "FFN experts" : "attention experts";
}

std::string heat_maps(const RunRecord& run) {
  const size_t rows = count_rows(run);
  if (rows == 0) return "";
  const size_t n_columns = std::clamp<size_t>(kMaxCells / rows, 4, 60);
  std::string html;
  for (const std::string kind : kKinds) {
    const auto layers = load_maps(run, kind, n_columns);
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      std::vector<std::string> labels;
      for (size_t i = 0; i < layers[layer].size(); ++i) labels.push_back(std::to_string(i));
      html += heat_map_to_svg(layers[layer],
                              labels,
                              {.title = fmt::format("Load of {}, layer {}", name_of(kind), layer),
                               .x_label = "training, from its first to its last logged step"},
                              1.0) +
              "\n";
    }
  }
  return html.empty() ? "" : "<div class=\"plots\">" + html + "</div>\n";
}

// Plots a number per layer, one line per layer.
std::string by_layer_over_time(const RunRecord& run,
                               const std::string& kind,
                               const std::string& key,
                               const std::string& title) {
  std::vector<PlotSeries> layers;
  for (const auto& line : run.steps) {
    if (!line.contains(kind) || !line[kind].contains(key)) continue;
    const auto& values = line[kind][key];
    for (size_t layer = 0; layer < values.size(); ++layer) {
      if (layer == layers.size()) {
        layers.push_back({.name = fmt::format("layer {}", layer), .x = {}, .y = {}});
      }
      layers[layer].x.push_back(number(line, "step"));
      layers[layer].y.push_back(values[layer].is_number() ? values[layer].get<double>() : NAN);
    }
  }
  if (layers.empty()) return "";
  return plot_to_svg(layers,
                     {.title = fmt::format("{}, {}", title, name_of(kind)), .x_label = "step"});
}

// The paper's figure: active experts per token, layer by layer.
std::string active_by_layer(const RunRecord& run) {
  if (run.validations.empty() || !run.validations.back().contains("experts")) return "";
  std::vector<PlotSeries> kinds;
  for (const auto& [kind, layers] : run.validations.back()["experts"].items()) {
    PlotSeries series{.name = kind, .x = {}, .y = {}};
    for (size_t i = 0; i < layers.size(); ++i) {
      series.x.push_back(static_cast<double>(i));
      series.y.push_back(number(layers[i], "active"));
    }
    series.labels.resize(series.x.size());
    kinds.push_back(std::move(series));
  }
  return plot_to_svg(kinds,
                     {.title = "Active experts at the last validation",
                      .x_label = "layer",
                      .y_label = "experts per token"});
}

// Plots the contribution of each term to the loss.
std::string loss_terms(const RunRecord& run) {
  const auto& weights = run.steps.back().value("loss_weights", nlohmann::json::object());
  std::vector<PlotSeries> terms;
  for (const auto& [key, weight] : weights.items()) {
    if (!weight.is_number() || weight == 0.0 || key == "lm_loss") continue;
    auto series = series_of(key, run.steps, key);
    for (size_t i = 0; i < run.steps.size(); ++i) {
      series.y[i] *= number(run.steps[i].value("loss_weights", nlohmann::json::object()), key);
    }
    terms.push_back(std::move(series));
  }
  if (terms.empty()) return "";
  return plot_to_svg(terms,
                     {.title = "Loss terms times their weights, beside the language-model loss",
                      .x_label = "step",
                      .y_label = "nats per token"});
}

std::string events_of(const RunRecord& run) {
  if (run.events.empty()) return "";
  std::string html = fmt::format(
      "<details><summary>{} events</summary><div class=\"wide\"><table>"
      "<tr><th>step</th><th>event</th><th>text</th></tr>\n",
      run.events.size());
  for (size_t i = 0; i < std::min(run.events.size(), kMaxEvents); ++i) {
    const auto& event = run.events[i];
    html += fmt::format("<tr><td>{:.0f}</td><td>{}</td><td>{}</td></tr>\n",
                        number(event, "step"),
                        escape_html(event.value("event", "")),
                        escape_html(event.value("text", "")));
  }
  return html + "</table></div></details>\n";
}

std::string environment_of(const RunRecord& run) {
  if (run.environment.empty()) return "";
  std::string html =
      "<details><summary>environment</summary><div class=\"wide\"><table class=\"environment\">\n";
  for (const auto& [name, value] : run.environment) {
    html += "<tr><td>" + escape_html(name) + "</td><td>" + escape_html(value) + "</td></tr>\n";
  }
  return html + "</table></div></details>\n";
}

std::string samples_of(const std::vector<TextSample>& samples) {
  if (samples.empty()) return "";
  std::string html = "<h2>Sample texts</h2>\n";
  for (const auto& sample : samples) {
    // A parser drops the first line end behind <pre>.
    html += "<h3>" + escape_html(sample.name) + "</h3>\n<pre class=\"sample\">\n" +
            escape_html(sample.text) + "</pre>\n";
  }
  return html;
}

std::string section_of(const RunRecord& run) {
  std::string plots = loss_terms(run) + active_by_layer(run);
  for (const std::string kind : kKinds) {
    plots += by_layer_over_time(run, kind, "mutual_information", "Mutual information, nats");
    plots += by_layer_over_time(run, kind, "token_entropy", "Entropy of a token's router, nats");
  }
  return "<h2>" + escape_html(run.name) + "</h2>\n<div class=\"plots\">" + plots + "</div>\n" +
         heat_maps(run) + events_of(run) + environment_of(run) +
         "<details><summary>config</summary><pre>" + escape_html(run.config) + "</pre></details>\n";
}

std::string curve_of(const nlohmann::json& curve) {
  if (!curve.contains("points")) return "";
  PlotSeries series{.name = "policies", .x = {}, .y = {}, .is_scatter = true};
  for (const auto& point : curve["points"]) {
    series.x.push_back(100 * number(point, "active_parameters") /
                       number(point, "non_embedding_parameters"));
    series.y.push_back(number(point, "perplexity"));
    series.labels.push_back(point.value("policy", ""));
  }
  return "<div class=\"plots\">" +
         plot_to_svg({series},
                     {.title = "Perplexity against active parameters",
                      .x_label = "active share of parameters that are not embeddings, %",
                      .y_label = "perplexity"}) +
         "</div>\n";
}

}  // namespace

std::string runs_to_html(const std::vector<RunRecord>& runs,
                         const nlohmann::json& curve,
                         const std::vector<TextSample>& samples) {
  std::string html = std::string(kHead) + "<h1>dsmoe runs</h1>\n" + table_of(runs);
  html += "<div class=\"plots\">" + loss_plot(runs) + "\n" +
          plot_of_all(runs, "Learning rate", "learning_rate", "") + "\n" +
          plot_of_all(runs, "Gradient norm before clipping", "gradient_norm", "", true) + "\n" +
          plot_of_all(runs, "Throughput", "tokens_per_second", "tokens per second") + "</div>\n";
  html += curve_of(curve) + samples_of(samples);
  for (const auto& run : runs) html += section_of(run);
  return html + "</body></html>\n";
}

}  // namespace dsmoe
