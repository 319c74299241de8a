#include "report/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/thousands.h"
#include "report/page_data.h"
#include "report/page_files.h"
#include "report/plot.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxEvents = 100;
constexpr const char* kNone = "-";

double last_of(const std::vector<nlohmann::json>& lines, const std::string& key) {
  return lines.empty() ? std::nan("") : number_of(lines.back(), key);
}

double median_of(const std::vector<nlohmann::json>& lines, const std::string& key) {
  std::vector<double> values;
  for (const auto& line : lines) {
    if (const double value = number_of(line, key); std::isfinite(value)) values.push_back(value);
  }
  if (values.empty()) return std::nan("");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string grouped(double value) { return std::isfinite(value) ? group_thousands(value) : kNone; }

std::string shown(double value, const char* format) {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : std::string(kNone);
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds)) return kNone;
  if (seconds >= 3600) return fmt::format("{:.1f} h", seconds / 3600);
  return seconds >= 60 ? fmt::format("{:.1f} min", seconds / 60) : fmt::format("{:.0f} s", seconds);
}

std::string summary_text(const RunRecord& run, const std::string& key) {
  if (!run.summary.is_object() || !run.summary.contains(key)) return kNone;
  const auto& value = run.summary[key];
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string row_of(const std::vector<std::string>& cells, const char* cell = "td") {
  std::string html = "<tr>";
  for (const auto& text : cells) html += fmt::format("<{0}>{1}</{0}>", cell, escape_html(text));
  return html + "</tr>\n";
}

std::string open_table(const char* kind = "") {
  return fmt::format("<div class=\"wide\"><table class=\"{}\">\n", kind);
}

constexpr const char* kCloseTable = "</table></div>\n";

std::string machine_of(const RunRecord& run) {
  const auto machine = summary_text(run, "machine");
  if (machine == kNone) return machine;
  return fmt::format("{}, {} x {} threads, {}",
                     machine,
                     summary_text(run, "ranks"),
                     summary_text(run, "threads"),
                     summary_text(run, "dtype"));
}

std::string table_of(const std::vector<RunRecord>& runs) {
  auto html = open_table() + row_of({"run",
                                     "parameters",
                                     "without embeddings",
                                     "steps",
                                     "tokens",
                                     "wall time",
                                     "training loss",
                                     "validation loss",
                                     "perplexity",
                                     "bits/byte",
                                     "tokens/s, median",
                                     "GFLOP/s",
                                     "MFU",
                                     "peak memory, MiB",
                                     "machine"},
                                    "th");
  for (const auto& run : runs) {
    const double validation = last_of(run.validations, "validation_loss");
    double bits = std::nan("");
    if (!run.validations.empty()) {
      const auto policies = run.validations.back().value("policies", nlohmann::json::array());
      if (!policies.empty()) bits = number_of(policies[0], "bits_per_byte");
    }
    html += row_of({run.name,
                    grouped(number_of(run.summary, "parameters_total")),
                    grouped(number_of(run.summary, "parameters_non_embedding")),
                    grouped(last_of(run.steps, "step")),
                    grouped(last_of(run.steps, "tokens")),
                    duration_text(wall_seconds(run)),
                    shown(last_of(run.steps, "lm_loss"), "{:.4f}"),
                    shown(validation, "{:.4f}"),
                    shown(std::exp(validation), "{:.4f}"),
                    shown(bits, "{:.4f}"),
                    grouped(median_of(run.steps, "tokens_per_second")),
                    shown(median_of(run.steps, "flops_per_second") / 1e9, "{:.1f}"),
                    shown(100 * median_of(run.steps, "mfu"), "{:.0f} %"),
                    grouped(last_of(run.steps, "peak_memory_bytes") / (1 << 20)),
                    machine_of(run)});
  }
  return html + kCloseTable;
}

// Quality and size of the last validation under every policy.
std::string policies_of(const std::vector<RunRecord>& runs) {
  std::string rows;
  for (const auto& run : runs) {
    if (run.validations.empty()) continue;
    const auto policies = run.validations.back().value("policies", nlohmann::json::array());
    for (const auto& one : policies) {
      rows +=
          row_of({run.name,
                  one.value("policy", ""),
                  shown(number_of(one, "loss"), "{:.4f}"),
                  shown(std::exp(number_of(one, "loss")), "{:.4f}"),
                  shown(100 * std::expm1(number_of(one, "loss") - number_of(policies[0], "loss")),
                        "{:+.2f} %"),
                  shown(number_of(one, "bits_per_byte"), "{:.4f}"),
                  grouped(number_of(one, "active_parameters")),
                  shown(100 * number_of(one, "active_share"), "{:.1f} %")});
    }
  }
  if (rows.empty()) return "";
  return "<h3>Last validation</h3>\n" + open_table() +
         row_of({"run",
                 "policy",
                 "loss",
                 "perplexity",
                 "over the first",
                 "bits/byte",
                 "active parameters",
                 "share"},
                "th") +
         rows + kCloseTable;
}

std::string differences_of(const std::vector<RunRecord>& runs) {
  const auto differences = config_differences(runs);
  if (runs.size() < 2 || differences.empty()) return "";
  std::vector<std::string> heading = {"key"};
  for (const auto& run : runs) heading.push_back(run.name);
  auto html = fmt::format("<details open><summary>{} {} of the configs differ</summary>\n",
                          differences.size(),
                          differences.size() == 1 ? "key" : "keys") +
              open_table("texts") + row_of(heading, "th");
  for (const auto& [key, values] : differences) {
    std::vector<std::string> cells = {key};
    for (const auto& value : values) cells.push_back(value.empty() ? kNone : value);
    html += row_of(cells);
  }
  return html + kCloseTable + "</details>\n";
}

std::string events_of(const RunRecord& run) {
  if (run.events.empty()) return "";
  auto html = fmt::format("<details><summary>{} events</summary>\n", run.events.size()) +
              open_table("texts") + row_of({"step", "event", "text"}, "th");
  for (size_t i = 0; i < std::min(run.events.size(), kMaxEvents); ++i) {
    const auto& event = run.events[i];
    html += row_of({fmt::format("{:.0f}", number_of(event, "step")),
                    event.value("event", ""),
                    event.value("text", "")});
  }
  return html + kCloseTable + "</details>\n";
}

std::string environment_of(const RunRecord& run) {
  if (run.environment.empty()) return "";
  auto html = "<details><summary>environment</summary>\n" + open_table("texts environment");
  for (const auto& [name, value] : run.environment) html += row_of({name, value});
  return html + kCloseTable + "</details>\n";
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

std::string section_of(const RunRecord& run, size_t index) {
  const bool has_loads =
      run.steps.back().contains("moe_routing") || run.steps.back().contains("moa_routing");
  return fmt::format("<h2>{}</h2>\n<div class=\"plots\" id=\"run-{}\"></div>\n",
                     escape_html(run.name),
                     index) +
         (has_loads ? "<h3>Load: share of the tokens that each expert serves</h3>\n" : "") +
         fmt::format("<div class=\"plots\" id=\"loads-{}\"></div>\n", index) + events_of(run) +
         environment_of(run) + "<details><summary>config</summary><pre>" + escape_html(run.config) +
         "</pre></details>\n";
}

// JSON inside a script element: no text of a run can end it.
std::string script_json(const nlohmann::ordered_json& data) {
  const auto text = data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string safe;
  for (const char c : text) safe += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return safe;
}

}  // namespace

std::string runs_to_html(const std::vector<RunRecord>& runs,
                         const nlohmann::json& curve,
                         const std::vector<TextSample>& samples) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>dsmoe runs</title>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<link rel=\"icon\" href=\"data:,\">\n<style>\n";
  html += std::string(kReportCss) + "</style></head><body>\n<h1>dsmoe runs</h1>\n";
  html += table_of(runs) + policies_of(runs) + differences_of(runs);
  html +=
      "<noscript>The plots need JavaScript; the tables do not.</noscript>\n"
      "<div class=\"controls\" id=\"controls\"></div>\n"
      "<div class=\"plots\" id=\"all-runs\"></div>\n";
  html += samples_of(samples);
  for (size_t i = 0; i < runs.size(); ++i) html += section_of(runs[i], i);
  html += "<script type=\"application/json\" id=\"data\">" + script_json(page_data(runs, curve)) +
          "</script>\n<script>\n" + kReportJs + "</script>\n";
  return html + "</body></html>\n";
}

}  // namespace dsmoe
