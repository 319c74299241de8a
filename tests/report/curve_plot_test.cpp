#include "report/curve_plot.h"

#include <catch2/catch.hpp>
#include <regex>

namespace dsmoe {
namespace {

// Contents of every match of a pattern with one group, in order.
std::vector<std::string> matches_of(const std::string& svg, const std::string& pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> found;
  for (auto it = std::sregex_iterator(svg.begin(), svg.end(), regex); it != std::sregex_iterator();
       ++it) {
    found.push_back((*it)[1]);
  }
  return found;
}

const std::vector<PolicyPoint> kCurvePoints = {{"all", 1.0, 4.75},
                                               {"moe:top_k=1;moa:all", 0.37, 5.25},
                                               {"moe:top_k=4;moa:all", 0.5, 4.8},
                                               {"threshold=0.48", 0.31, 4.9},
                                               {"threshold=0.3", 0.35, 4.76},
                                               {"threshold=0.8", 0.29, 5.0}};

}  // namespace

TEST_CASE("policy_family: the policy without the numbers that vary", "[report]") {
  CHECK(policy_family("all") == "all");
  CHECK(policy_family("threshold=0.48") == "threshold");
  CHECK(policy_family("threshold=1e-05") == "threshold");
  CHECK(policy_family("threshold=0.48,max=6") == "threshold,max=6");
  CHECK(policy_family("threshold_top_k=0.5") == "threshold_top_k");
  CHECK(policy_family("moe:top_k=4;moa:all") == "top_k");
  CHECK(policy_family("moe:top_k=4;moa:top_k=2") == "moe:top_k;moa:top_k");
  CHECK(policy_family("moe:all;moa:top_k=2") == "moe:all;moa:top_k");
  CHECK(policy_family("routing of 4 layers") == "routing of 4 layers");
}

TEST_CASE("curve_to_svg: a line a family, a number beside each point, a line of `all`",
          "[report]") {
  const auto svg = curve_to_svg(kCurvePoints);
  // By family in the order of their cheapest policies: points from left to right.
  const auto lines = matches_of(svg, "<path d=\"([^\"]*)\" fill=\"none\"");
  REQUIRE(lines.size() == 3);
  const std::regex number("[0-9.]+");
  const auto count = [&](const std::string& line) {
    return std::distance(std::sregex_iterator(line.begin(), line.end(), number),
                         std::sregex_iterator());
  };
  CHECK(count(lines[0]) == 2 * 3);
  CHECK(count(lines[1]) == 2 * 2);
  std::vector<double> all;
  for (auto it = std::sregex_iterator(lines[2].begin(), lines[2].end(), number);
       it != std::sregex_iterator();
       ++it) {
    all.push_back(std::stod(it->str()));
  }
  REQUIRE(all.size() == 4);
  CHECK(all[1] == all[3]);       // horizontal
  CHECK(all[2] - all[0] > 500);  // over the width of the plot
  CHECK(matches_of(svg, "fill: #[0-9a-f]{6}\">([^<]*)<") ==
        std::vector<std::string>{"0.8", "0.48", "0.3", "1", "4"});
  CHECK(matches_of(svg, "<title>([^<]*)</title>").front() == "threshold=0.8: 29.0 %, 5.0000");
  for (const auto* name : {">threshold<", ">top_k<", ">all: 4.7500<"}) {
    CAPTURE(name);
    CHECK(svg.find(name) != std::string::npos);
  }
}

TEST_CASE("curve_to_svg: `all` alone is a point, no `all` no line of it", "[report]") {
  const auto alone = curve_to_svg({kCurvePoints.front()});
  CHECK(matches_of(alone, "(<circle)").size() == 1);
  const auto without = curve_to_svg({kCurvePoints[1], kCurvePoints[2]});
  CHECK(without.find(">all") == std::string::npos);
  CHECK(matches_of(without, "<path d=\"([^\"]*)\" fill=\"none\"").size() == 1);
}

}  // namespace dsmoe
