#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// A line of a plot, or only its points with `is_scatter`. Points that are not finite, or not above
/// 0 on a logarithmic axis, break the line.
struct PlotSeries {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
  bool is_scatter = false;
  std::vector<std::string> labels = {};  ///< labels of the points, shown on hover; empty: none
  std::vector<std::string> texts = {};   ///< beside the points where there is room; empty: none
};

struct PlotAxes {
  std::string title = {};
  std::string x_label = {};
  std::string y_label = {};
  bool log_x = false;
  bool log_y = false;
};

/// Returns one self-contained `<svg>` element as wide as its container. Text has the container's
/// colour and the grid a faint version of it, so it suits light and dark pages. Draws at most about
/// 1,000 points of a series: of more, the lowest and highest of each run.
std::string plot_to_svg(const std::vector<PlotSeries>& series, const PlotAxes& axes);

/// Returns rows of cells; a cell is the darker the larger its value over `full`. x_label is under
/// the columns, row_labels beside the rows.
std::string heat_map_to_svg(const std::vector<std::vector<double>>& rows,
                            const std::vector<std::string>& row_labels,
                            const PlotAxes& axes,
                            double full);

/// Returns `text` with the five special characters of HTML replaced.
std::string escape_html(const std::string& text);

}  // namespace dsmoe
