#include "report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace dsmoe {
namespace {

constexpr double kWidth = 640;
constexpr double kHeight = 320;
constexpr double kLeft = 64;
constexpr double kRight = 16;
constexpr double kTop = 32;
constexpr double kBottom = 44;
constexpr size_t kMaxPoints = 1000;
constexpr size_t kLegendColumns = 4;
// Distinct for readers with red-green blindness; Okabe and Ito's palette.
constexpr std::array kColours =
    {"#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#999999"};

const char* colour_of(size_t index) { return kColours.at(index % kColours.size()); }

// Range of an axis, of the logarithms on a logarithmic axis.
struct Scale {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  bool is_log = false;
  double begin = 0;  // pixels
  double end = 0;

  double measure(double value) const { return is_log ? std::log10(value) : value; }
  bool can_show(double value) const { return std::isfinite(value) && (!is_log || value > 0); }
  double pixel(double value) const {
    return begin + (measure(value) - low) / (high - low) * (end - begin);
  }
};

void widen(Scale& scale, const std::vector<double>& values) {
  for (const double value : values) {
    if (!scale.can_show(value)) continue;
    scale.low = std::min(scale.low, scale.measure(value));
    scale.high = std::max(scale.high, scale.measure(value));
  }
}

// Makes the range non-empty and adds a margin.
void settle(Scale& scale) {
  if (scale.low > scale.high) {
    scale.low = 0;
    scale.high = 1;
  }
  const double margin = scale.high > scale.low ? 0.04 * (scale.high - scale.low)
                                               : std::max(std::abs(scale.low), 1.0) * 0.1;
  scale.low -= margin;
  scale.high += margin;
}

// About five round values inside the scale.
std::vector<double> ticks_of(const Scale& scale) {
  const double span = scale.high - scale.low;
  double step = std::pow(10.0, std::floor(std::log10(span / 5)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (span / (step * factor) <= 6) {
      step *= factor;
      break;
    }
  }
  std::vector<double> ticks;
  for (double tick = std::ceil(scale.low / step) * step; tick <= scale.high; tick += step) {
    const double value = std::abs(tick) < 1e-9 * step ? 0.0 : tick;
    ticks.push_back(scale.is_log ? std::pow(10.0, value) : value);
  }
  return ticks;
}

std::string tick_text(double value) {
  const double size = std::abs(value);
  for (const auto& [unit, suffix] : {std::pair{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (size >= unit) return fmt::format("{:.3g}{}", value / unit, suffix);
  }
  return fmt::format("{:.3g}", value);
}

std::string text_at(double x,
                    double y,
                    const char* anchor,
                    const std::string& text,
                    const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>",
                     x,
                     y,
                     anchor,
                     more,
                     escape_html(text));
}

std::string open_svg(double height, const PlotAxes& axes) {
  return fmt::format(
             "<svg viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"{2}\" "
             "xmlns=\"http://www.w3.org/2000/svg\" fill=\"currentColor\" font-size=\"12\" "
             "font-family=\"system-ui, sans-serif\" style=\"width: 100%; height: auto\">",
             kWidth,
             height,
             escape_html(axes.title)) +
         text_at(kLeft, 18, "start", axes.title, " font-weight=\"600\"");
}

std::string draw_axes(const Scale& x, const Scale& y, const PlotAxes& axes) {
  std::string svg;
  const auto line = [](double x1, double y1, double x2, double y2) {
    return fmt::format(
        "<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"currentColor\" "
        "stroke-opacity=\"0.15\"/>",
        x1,
        y1,
        x2,
        y2);
  };
  for (const double tick : ticks_of(x)) {
    svg += line(x.pixel(tick), y.begin, x.pixel(tick), y.end);
    svg += text_at(x.pixel(tick), y.begin + 16, "middle", tick_text(tick));
  }
  for (const double tick : ticks_of(y)) {
    svg += line(x.begin, y.pixel(tick), x.end, y.pixel(tick));
    svg += text_at(x.begin - 6, y.pixel(tick) + 4, "end", tick_text(tick));
  }
  svg += text_at((x.begin + x.end) / 2, y.begin + 34, "middle", axes.x_label);
  svg += text_at(x.end, 18, "end", axes.y_label, " fill-opacity=\"0.7\"");
  return svg;
}

// Indices of the points that are drawn: of each of 500 runs its lowest and highest.
std::vector<size_t> thin(const std::vector<double>& y) {
  std::vector<size_t> kept;
  if (y.size() <= kMaxPoints) {
    for (size_t i = 0; i < y.size(); ++i) kept.push_back(i);
    return kept;
  }
  const size_t n_runs = kMaxPoints / 2;
  for (size_t run = 0; run < n_runs; ++run) {
    const auto first = y.begin() + static_cast<std::ptrdiff_t>(run * y.size() / n_runs);
    const auto last = y.begin() + static_cast<std::ptrdiff_t>((run + 1) * y.size() / n_runs);
    const auto [low, high] = std::minmax_element(first, last);
    const auto a = static_cast<size_t>(low - y.begin());
    const auto b = static_cast<size_t>(high - y.begin());
    kept.push_back(std::min(a, b));
    if (a != b) kept.push_back(std::max(a, b));
  }
  return kept;
}

std::string draw_line(const PlotSeries& series,
                      const Scale& x,
                      const Scale& y,
                      const char* colour) {
  std::string path;
  bool is_down = false;
  for (const size_t i : thin(series.y)) {
    if (!x.can_show(series.x[i]) || !y.can_show(series.y[i])) {
      is_down = false;
      continue;
    }
    path += fmt::format(
        "{}{:.1f} {:.1f}", is_down ? "L" : "M", x.pixel(series.x[i]), y.pixel(series.y[i]));
    is_down = true;
  }
  return fmt::format(
      "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>", path, colour);
}

std::string draw_points(const PlotSeries& series,
                        const Scale& x,
                        const Scale& y,
                        const char* colour) {
  std::string svg;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!x.can_show(series.x[i]) || !y.can_show(series.y[i])) continue;
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\">",
                       x.pixel(series.x[i]),
                       y.pixel(series.y[i]),
                       colour);
    if (i < series.labels.size()) svg += "<title>" + escape_html(series.labels[i]) + "</title>";
    svg += "</circle>";
  }
  return svg;
}

std::string draw_texts(const PlotSeries& series,
                       const Scale& x,
                       const Scale& y,
                       const char* colour) {
  constexpr double kTextWidth = 24;
  constexpr double kTextHeight = 10;
  std::string svg;
  double last_x = -kWidth;
  double last_y = -kHeight;
  const auto fill = fmt::format(" font-size=\"10\" style=\"fill: {}\"", colour);
  for (size_t i = 0; i < std::min(series.x.size(), series.texts.size()); ++i) {
    if (!x.can_show(series.x[i]) || !y.can_show(series.y[i])) continue;
    const double at_x = x.pixel(series.x[i]) + 5;
    const double at_y = y.pixel(series.y[i]) - 5;
    // A text over the one before would make both illegible.
    if (std::abs(at_x - last_x) < kTextWidth && std::abs(at_y - last_y) < kTextHeight) continue;
    svg += text_at(at_x, at_y, "start", series.texts[i], fill.c_str());
    last_x = at_x;
    last_y = at_y;
  }
  return svg;
}

std::string draw_legend(const std::vector<PlotSeries>& series, double top) {
  if (series.size() < 2) return "";
  std::string svg;
  const double column = (kWidth - kLeft) / static_cast<double>(kLegendColumns);
  for (size_t i = 0; i < series.size(); ++i) {
    const double x = kLeft + column * static_cast<double>(i % kLegendColumns);
    const double y = top + 16 * static_cast<double>(i / kLegendColumns);
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"10\" height=\"10\" fill=\"{}\"/>",
                       x,
                       y - 9,
                       colour_of(i));
    svg += text_at(x + 14, y, "start", series[i].name);
  }
  return svg;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string plot_to_svg(const std::vector<PlotSeries>& series, const PlotAxes& axes) {
  Scale x{.is_log = axes.log_x, .begin = kLeft, .end = kWidth - kRight};
  Scale y{.is_log = axes.log_y, .begin = kHeight - kBottom, .end = kTop};
  for (const auto& one : series) {
    widen(x, one.x);
    widen(y, one.y);
  }
  settle(x);
  settle(y);
  const size_t legend_rows =
      series.size() < 2 ? 0 : (series.size() + kLegendColumns - 1) / kLegendColumns;
  std::string svg = open_svg(kHeight + 16 * static_cast<double>(legend_rows), axes);
  svg += draw_axes(x, y, axes);
  for (size_t i = 0; i < series.size(); ++i) {
    if (!series[i].is_scatter) svg += draw_line(series[i], x, y, colour_of(i));
    if (series[i].is_scatter || !series[i].labels.empty()) {
      svg += draw_points(series[i], x, y, colour_of(i));
    }
    svg += draw_texts(series[i], x, y, colour_of(i));
  }
  return svg + draw_legend(series, kHeight + 8) + "</svg>";
}

std::string heat_map_to_svg(const std::vector<std::vector<double>>& rows,
                            const std::vector<std::string>& row_labels,
                            const PlotAxes& axes,
                            double full) {
  size_t n_columns = 1;
  for (const auto& row : rows) n_columns = std::max(n_columns, row.size());
  const double cell_width = (kWidth - kLeft - kRight) / static_cast<double>(n_columns);
  const double cell_height = 14;
  std::string svg = open_svg(kTop + cell_height * static_cast<double>(rows.size()) + 28, axes);
  for (size_t r = 0; r < rows.size(); ++r) {
    const double y = kTop + cell_height * static_cast<double>(r);
    svg += text_at(kLeft - 6, y + 11, "end", r < row_labels.size() ? row_labels[r] : "");
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const double value = rows[r][c];
      const double share = std::isfinite(value) ? std::clamp(value / full, 0.0, 1.0) : 0.0;
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
          "fill-opacity=\"{:.2f}\"><title>{:.3g}</title></rect>",
          kLeft + cell_width * static_cast<double>(c),
          y,
          std::max(cell_width - 0.5, 0.5),
          cell_height - 1,
          colour_of(0),
          share,
          value);
    }
  }
  svg += text_at((kLeft + kWidth - kRight) / 2,
                 kTop + cell_height * static_cast<double>(rows.size()) + 18,
                 "middle",
                 axes.x_label);
  return svg + "</svg>";
}

}  // namespace dsmoe
