#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// A line of a plot, or with `is_scatter` its points alone. Points that are not finite, or not
/// above 0 on a logarithmic axis, break the line.
struct PlotSeries {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
  bool is_scatter = false;
  std::vector<std::string> labels = {};  ///< of the points, shown when pointed at; empty: none
};

struct PlotAxes {
  std::string title = {};
  std::string x_label = {};
  std::string y_label = {};
  bool log_x = false;
  bool log_y = false;
};

/// One `<svg>` element that needs nothing outside itself. It is as wide as its container, its text
/// takes the container's colour, its grid is that colour made faint, so light and dark pages suit.
/// At most about 1,000 points of a series are drawn: of more, the lowest and highest of each run.
std::string plot_to_svg(const std::vector<PlotSeries>& series, const PlotAxes& axes);

/// Rows of cells, each the darker the larger its value over `full`. x_label stands under the
/// columns, row_labels beside the rows.
std::string heat_map_to_svg(const std::vector<std::vector<double>>& rows,
                            const std::vector<std::string>& row_labels,
                            const PlotAxes& axes,
                            double full);

/// `text` with the five characters that mean something to HTML replaced.
std::string escape_html(const std::string& text);

}  // namespace dsmoe
