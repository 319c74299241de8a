#include "model/moe/routing_plan.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "common/error.h"

namespace dsmoe {
namespace {

/// A file with the given text, removed at the end of the test.
class PlanFile {
 public:
  explicit PlanFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() /
              ("dsmoe_plan_" + std::to_string(getpid()) + ".yaml")) {
    std::ofstream(path_) << text;
  }
  ~PlanFile() { std::filesystem::remove(path_); }
  std::string argument() const { return "routing=" + path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE("parse_routing_plan: bare top_k leaves attention dense", "[model][moe]") {
  const auto plan = parse_routing_plan("top_k=2");
  CHECK(plan.layer(0).moe == RoutingPolicy::top_k(2));
  CHECK(plan.layer(0).moa == RoutingPolicy::all());
  CHECK(plan.layer(7) == plan.layer(0));
}

TEST_CASE("parse_routing_plan: bare thresholds apply to both kinds", "[model][moe]") {
  for (const std::string text :
       {"all", "threshold=0.48", "threshold=0.4,max=3", "threshold_top_k=0.5"}) {
    const auto plan = parse_routing_plan(text);
    CHECK(plan.layer(0).moe == parse_routing_policy(text));
    CHECK(plan.layer(0).moa == parse_routing_policy(text));
    CHECK(plan == RoutingPlan(parse_routing_policy(text)));
  }
}

TEST_CASE("parse_routing_plan: kinds may be named in any order", "[model][moe]") {
  const RoutingPlan expected(
      LayerRouting{.moa = RoutingPolicy::threshold(0.3, 2), .moe = RoutingPolicy::top_k(4)});
  CHECK(parse_routing_plan("moe:top_k=4;moa:threshold=0.3,max=2") == expected);
  CHECK(parse_routing_plan("moa:threshold=0.3,max=2;moe:top_k=4") == expected);
  CHECK(parse_routing_plan("moe:top_k=4").layer(0).moa == RoutingPolicy::all());
  CHECK(parse_routing_plan("moa:top_k=4").layer(0).moe == RoutingPolicy::all());
  CHECK(parse_routing_plan(expected.to_string()) == expected);
}

TEST_CASE("RoutingPlan: parsing the text of to_string gives an equal plan", "[model][moe]") {
  for (const std::string text : {"all",
                                 "top_k=2",
                                 "threshold=0.4",
                                 "moe:top_k=2;moa:top_k=2",
                                 "moe:threshold=0.4;moa:top_k=1"}) {
    const auto plan = parse_routing_plan(text);
    CAPTURE(text, plan.to_string());
    CHECK(parse_routing_plan(plan.to_string()) == plan);
  }
}

TEST_CASE("parse_routing_plan: malformed texts throw", "[model][moe]") {
  for (const std::string text : {"",
                                 "ffn:all",
                                 "moe:",
                                 "moe:top_k=0",
                                 "moe:all;moe:all",
                                 "moe:all;top_k=2",
                                 "moe:all;;moa:all",
                                 "routing=",
                                 "routing=/nowhere/plan.yaml"}) {
    INFO("'" << text << "'");
    CHECK_THROWS_AS(parse_routing_plan(text), Error);
  }
}

TEST_CASE("parse_routing_plan: a file gives each layer its own policies", "[model][moe]") {
  const PlanFile file(
      "layers:\n"
      "  - {moe: top_k=1, moa: all}\n"
      "  - {moe: threshold=0.5}\n"
      "  - {moa: top_k=2, moe: all}\n");
  const auto plan = parse_routing_plan(file.argument());
  CHECK(plan.layer(0).moe == RoutingPolicy::top_k(1));
  CHECK(plan.layer(1).moe == RoutingPolicy::threshold(0.5));
  CHECK(plan.layer(1).moa == RoutingPolicy::all());
  CHECK(plan.layer(2).moa == RoutingPolicy::top_k(2));
  CHECK_NOTHROW(plan.validate(3, 4, 8));
  CHECK_THROWS_AS(plan.validate(2, 4, 8), Error);
  CHECK_THROWS_AS(plan.validate(4, 4, 8), Error);
  CHECK_THROWS_AS(plan.validate(3, 1, 8), Error);  // layer 2: top_k=2 of one attention expert
  CHECK_NOTHROW(plan.validate(3, 0, 8));           // no attention experts to check
}

TEST_CASE("parse_routing_plan: a malformed file throws and is named", "[model][moe]") {
  for (const std::string text : {"",
                                 "layers: 3\n",
                                 "layers: []\n",
                                 "layers: [all]\n",
                                 "other: []\n",
                                 "layers: [{moe: all, ffn: all}]\n",
                                 "layers: [{moe: top_k=0}]\n",
                                 "layers: [{moe: all}]\nextra: 1\n",
                                 "layers: [{moe: [1]}]\n",
                                 "layers: [{\n"}) {
    INFO(text);
    const PlanFile file(text);
    CHECK_THROWS_AS(parse_routing_plan(file.argument()), Error);
  }
}

TEST_CASE("RoutingPlan: with sets the execution of every policy", "[model][moe]") {
  const RoutingPlan plan({LayerRouting{}, LayerRouting{.moa = {}, .moe = RoutingPolicy::top_k(2)}});
  const auto sparse = plan.with(Execution::kSparse);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(sparse.layer(i).moa.execution == Execution::kSparse);
    CHECK(sparse.layer(i).moe.execution == Execution::kSparse);
  }
  CHECK(sparse.with(Execution::kAuto) == plan);
}

TEST_CASE("RoutingPlan: validate names the layer and the kind", "[model][moe]") {
  const RoutingPlan plan(LayerRouting{.moa = {}, .moe = RoutingPolicy::top_k(9)});
  CHECK_THROWS_WITH(plan.validate(2, 4, 8), Catch::Contains("layer 0") && Catch::Contains("moe"));
  CHECK_NOTHROW(plan.validate(2, 4, 9));
}

}  // namespace dsmoe
