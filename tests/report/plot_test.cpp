#include "report/plot.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace dsmoe {
namespace {

size_t count_in_svg(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Numbers of the first path that is not a grid line.
std::vector<double> points_of(const std::string& svg) {
  const size_t end = svg.find("\" fill=\"none\"");
  const size_t start = svg.rfind("d=\"", end) + 3;
  std::vector<double> numbers;
  std::string number;
  for (const char c : svg.substr(start, end - start) + " ") {
    if ((c >= '0' && c <= '9') || c == '.' || c == '-') {
      number += c;
    } else if (!number.empty()) {
      numbers.push_back(std::stod(number));
      number.clear();
    }
  }
  return numbers;
}

}  // namespace

TEST_CASE("plot_to_svg: larger values are further right and higher", "[report]") {
  const auto points =
      points_of(plot_to_svg({{.name = "loss", .x = {0, 1, 2}, .y = {1, 3, 2}}}, {.title = "t"}));
  REQUIRE(points.size() == 6);
  CHECK(points[0] < points[2]);
  CHECK(points[2] - points[0] == Approx(points[4] - points[2]).margin(0.11));
  CHECK(points[1] > points[5]);  // pixels grow downwards
  CHECK(points[5] > points[3]);
}

TEST_CASE("plot_to_svg: a logarithmic axis spaces ratios", "[report]") {
  const auto points = points_of(plot_to_svg({{.name = "loss", .x = {1, 10, 100}, .y = {1, 1, 2}}},
                                            {.title = "t", .log_x = true}));
  REQUIRE(points.size() == 6);
  CHECK(points[2] - points[0] == Approx(points[4] - points[2]).margin(0.11));
}

TEST_CASE("plot_to_svg: points that cannot be shown break the line", "[report]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto svg =
      plot_to_svg({{.name = "loss", .x = {0, 1, 2, 3, 4}, .y = {1, 2, nan, 4, 5}}}, {.title = "t"});
  CHECK(points_of(svg).size() == 8);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(plot_to_svg({}, {.title = "empty"}).find("nan") == std::string::npos);
}

TEST_CASE("plot_to_svg: thins a long line but keeps its peak", "[report]") {
  PlotSeries series{.name = "loss", .x = {}, .y = {}};
  for (int i = 0; i < 5000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 3210 ? 9.0 : 1.0 + 0.001 * (i % 7));
  }
  const auto points = points_of(plot_to_svg({series}, {.title = "t"}));
  CHECK(points.size() <= 2000);
  double highest = 1e9;
  for (size_t i = 1; i < points.size(); i += 2) highest = std::min(highest, points[i]);
  CHECK(highest < 60);  // near the top, at 32
}

TEST_CASE("plot_to_svg: names and labels cannot become markup", "[report]") {
  const auto svg = plot_to_svg(
      {{.name = "<a>", .x = {1}, .y = {1}, .is_scatter = true, .labels = {"\"quoted\" & <b>"}},
       {.name = "other", .x = {2}, .y = {2}}},
      {.title = "<script>"});
  CHECK(svg.find("<script>") == std::string::npos);
  CHECK(svg.find("<b>") == std::string::npos);
  CHECK(svg.find("&quot;quoted&quot; &amp; &lt;b&gt;") != std::string::npos);
  CHECK(svg.find("&lt;a&gt;") != std::string::npos);
}

TEST_CASE("heat_map_to_svg: draws a cell for each value, larger values darker", "[report]") {
  const auto svg = heat_map_to_svg({{0.0, 0.5}, {1.0, 2.0}}, {"0", "1"}, {.title = "load"}, 1.0);
  CHECK(count_in_svg(svg, "<rect") == 4);
  CHECK(count_in_svg(svg, "fill-opacity=\"0.00\"") == 1);
  CHECK(count_in_svg(svg, "fill-opacity=\"0.50\"") == 1);
  CHECK(count_in_svg(svg, "fill-opacity=\"1.00\"") == 2);  // no more than full
}

TEST_CASE("plot_to_svg: leaves out the text of a point that would cover the one before") {
  const auto svg = plot_to_svg({{.name = "policies",
                                 .x = {0, 1, 2, 100},
                                 .y = {5, 5, 9, 1},
                                 .texts = {"first", "covered", "above", "far"}}},
                               {.title = "t"});
  CHECK(svg.find(">covered<") == std::string::npos);
  for (const auto* text : {">first<", ">above<", ">far<"}) {
    CAPTURE(text);
    CHECK(svg.find(text) != std::string::npos);
  }
}

}  // namespace dsmoe
