#include "train/log_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "common/counts.h"

namespace dsmoe {
namespace {

constexpr size_t kTimeWidth = 9;  // `12:34:56 ` in front of a log line
constexpr size_t kMaxWidth = 100 - kTimeWidth;
constexpr size_t kGap = 2;

std::string short_number(double value) {
  if (value >= 1e15) return fmt::format("{:.0e}", value);
  for (const auto& [unit, suffix] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (value < unit) continue;
    return fmt::format("{:.{}f}{}", value / unit, value < 100 * unit ? 1 : 0, suffix);
  }
  return fmt::format("{:.0f}", value);
}

const LossTerm* find_term(const StepMetrics& metrics, const std::string& name) {
  for (const auto& term : metrics.loss_terms) {
    if (term.name == name) return &term;
  }
  return nullptr;
}

std::string step_text(const StepMetrics& m, int64_t total_steps, const std::string&) {
  return fmt::format("{}/{}", m.step, total_steps);
}

std::string tokens_text(const StepMetrics& m, int64_t, const std::string&) {
  return short_count(static_cast<double>(m.tokens));
}

// A term that is only reported adds nothing: its share alone is shown.
std::string term_text(const StepMetrics& m, int64_t, const std::string& name) {
  const auto* term = find_term(m, name);
  if (term == nullptr) return "-";
  auto added = fmt::format("{:.3f}", term->contribution());
  if (added == "-0.000") added = "0.000";
  if (term->bound == 0) return added;
  const auto share = fmt::format("{:.0f}%", 100 * term->value / term->bound);
  return term->weight == 0 ? share : fmt::format("{} {:>4}", added, share);
}

std::string loss_text(const StepMetrics& m, int64_t, const std::string&) {
  return fmt::format("{:.3f}", m.loss);
}

std::string rate_text(const StepMetrics& m, int64_t, const std::string&) {
  return fmt::format("{:.1e}", m.learning_rate);
}

std::string norm_text(const StepMetrics& m, int64_t, const std::string&) {
  return m.gradient_norm < 100 ? fmt::format("{:.2f}", m.gradient_norm)
                               : short_number(m.gradient_norm);
}

std::string speed_text(const StepMetrics& m, int64_t, const std::string&) {
  return m.tokens_per_second < 1e5 ? fmt::format("{:.0f}", m.tokens_per_second)
                                   : short_number(m.tokens_per_second);
}

std::string flops_text(const StepMetrics& m, int64_t, const std::string&) {
  return short_number(m.flops_per_second);
}

std::string mfu_text(const StepMetrics& m, int64_t, const std::string&) {
  return m.mfu ? fmt::format("{:.0f}%", 100 * *m.mfu) : "-";
}

std::string memory_text(const StepMetrics& m, int64_t, const std::string&) {
  const auto bytes = static_cast<double>(m.device_memory_bytes.value_or(m.peak_memory_bytes));
  return fmt::format("{:.1f}", bytes / (1 << 30));
}

std::string eta_text(const StepMetrics& m, int64_t total_steps, const std::string&) {
  if (m.tokens_per_second <= 0) return "-";
  const double tokens_per_step = static_cast<double>(m.tokens) / static_cast<double>(m.step);
  const double left = static_cast<double>(total_steps - m.step) * tokens_per_step;
  return format_duration(left / m.tokens_per_second);
}

// Of the most that a term can be, or of a usual one.
size_t width_of(const LossTerm& term) {
  if (term.bound == 0) return 6;
  if (term.weight == 0) return 4;
  return std::max<size_t>(fmt::format("{:.3f}", term.weight * term.bound).size(), 6) + 5;
}

bool is_shown(const LossTerm& term) { return term.weight != 0 || term.bound != 0; }

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = std::llround(std::max(seconds, 0.0));
  if (whole >= 86400) return fmt::format("{}d {}h", whole / 86400, whole % 86400 / 3600);
  if (whole >= 3600) return fmt::format("{}h {:02}m", whole / 3600, whole % 3600 / 60);
  return whole >= 60 ? fmt::format("{}m {:02}s", whole / 60, whole % 60)
                     : fmt::format("{}s", whole);
}

LogTable::LogTable(const StepMetrics& first, int64_t total_steps) : total_steps_(total_steps) {
  double lowest = 0;
  const auto step_width = std::max<size_t>(2 * std::to_string(total_steps).size() + 1, 4);
  columns_ = {{"step", step_width, step_text}};
  for (const auto& term : first.loss_terms) {
    if (!is_shown(term)) continue;
    terms_.push_back(term);
    lowest += term.weight * term.bound;
    columns_.push_back({term.name, std::max(width_of(term), term.name.size()), term_text});
  }
  columns_.push_back(
      {"loss", std::max<size_t>(fmt::format("{:.3f}", lowest).size(), 6), loss_text});

  // In their order in a row; the number is the order in which they get the room that is left.
  struct Optional {
    int order;
    Column column;
    bool is_known = true;
  };
  const std::array<Optional, 8> optional = {{
      {3, {"lr", 7, rate_text}},
      {2, {"grad", 5, norm_text}},
      {0, {"tok/s", 5, speed_text}},
      {5, {"FLOP/s", 6, flops_text}},
      {4, {"mfu", 4, mfu_text}, first.mfu.has_value()},
      {6, {"GiB", 5, memory_text}},
      {7, {"tokens", 6, tokens_text}},
      {1, {"eta", 7, eta_text}},
  }};
  size_t used = heading().size();
  std::array<bool, optional.size()> fits{};
  for (int order = 0; order < static_cast<int>(optional.size()); ++order) {
    for (size_t i = 0; i < optional.size(); ++i) {
      if (optional[i].order != order || !optional[i].is_known) continue;
      const size_t width = kGap + optional[i].column.width;
      fits[i] = used + width <= kMaxWidth;
      if (fits[i]) used += width;
    }
  }
  for (size_t i = 0; i < optional.size(); ++i) {
    if (fits[i]) columns_.push_back(optional[i].column);
  }
}

std::string LogTable::heading() const {
  std::string text;
  for (const auto& column : columns_) {
    text += fmt::format("{:>{}}", column.name, column.width + (text.empty() ? 0 : kGap));
  }
  return text;
}

std::string LogTable::row(const StepMetrics& metrics) const {
  std::string text;
  for (const auto& column : columns_) {
    text += fmt::format("{:>{}}",
                        column.text(metrics, total_steps_, column.name),
                        column.width + (text.empty() ? 0 : kGap));
  }
  return text;
}

std::vector<std::string> LogTable::legend() const {
  if (terms_.size() < 2) return {};
  std::string sum;
  std::string shares;
  for (const auto& term : terms_) {
    if (term.weight != 0) sum += (sum.empty() ? "" : " + ") + term.name;
    if (term.bound != 0) shares += (shares.empty() ? "" : ", ") + term.name;
  }
  std::vector<std::string> lines = {sum +
                                    " = loss, nats per token; terms are shown times their weights"};
  if (shares.empty()) return lines;
  lines.push_back(shares +
                  ": a negative number lowers the loss. The share is mutual information over");
  lines.push_back(
      "  its bound: 100% = each token decides for one expert, and all experts are used alike");
  return lines;
}

}  // namespace dsmoe
