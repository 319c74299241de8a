#include "model/moe/routing_policy.h"

#include <catch2/catch.hpp>
#include <string>

#include "common/error.h"

namespace dsmoe {

TEST_CASE("parse_routing_policy: reads the five forms", "[model][moe]") {
  CHECK(parse_routing_policy("all") == RoutingPolicy::all());
  CHECK(parse_routing_policy("top_k=4") == RoutingPolicy::top_k(4));
  CHECK(parse_routing_policy("threshold=0.48") == RoutingPolicy::threshold(0.48));
  CHECK(parse_routing_policy("threshold=0.48,max=6") == RoutingPolicy::threshold(0.48, 6));
  CHECK(parse_routing_policy("threshold_top_k=0.48") == RoutingPolicy::threshold_top_k(0.48));
  CHECK(parse_routing_policy("threshold=0") == RoutingPolicy::threshold(0.0));
}

TEST_CASE("parse_routing_policy: parsing the text of to_string gives an equal policy",
          "[model][moe]") {
  for (const auto& policy : {RoutingPolicy::all(),
                             RoutingPolicy::top_k(7),
                             RoutingPolicy::threshold(0.1),
                             RoutingPolicy::threshold(1.0 / 3.0, 5),
                             RoutingPolicy::threshold_top_k(0.25)}) {
    INFO(policy.to_string());
    CHECK(parse_routing_policy(policy.to_string()) == policy);
  }
}

TEST_CASE("parse_routing_policy: anything else throws and quotes the text", "[model][moe]") {
  for (const std::string text : {"",
                                 "ALL",
                                 "all ",
                                 "top_k",
                                 "top_k=",
                                 "top_k=0",
                                 "top_k=-1",
                                 "top_k=2.5",
                                 "top_k=4x",
                                 "top_k= 4",
                                 "threshold",
                                 "threshold=",
                                 "threshold=-.1",
                                 "threshold=nan",
                                 "threshold=inf",
                                 "threshold=0.4,max=0",
                                 "threshold=0.4,max=",
                                 "threshold=0.4,cap=3",
                                 "threshold=0.4,max=2,max=3",
                                 "threshold_top_k=",
                                 "threshold_top_k=0.4,max=3",
                                 "top_k=99999999999999999999"}) {
    INFO("'" << text << "'");
    CHECK_THROWS_AS(parse_routing_policy(text), Error);
    CHECK_THROWS_WITH(parse_routing_policy(text), Catch::Contains("'" + text + "'"));
  }
}

TEST_CASE("RoutingPolicy: validate checks the numbers against the layer", "[model][moe]") {
  CHECK_NOTHROW(RoutingPolicy::all().validate(1, "layer"));
  CHECK_NOTHROW(RoutingPolicy::top_k(1).validate(8, "layer"));
  CHECK_NOTHROW(RoutingPolicy::top_k(8).validate(8, "layer"));
  CHECK_NOTHROW(RoutingPolicy::threshold(2.0).validate(8, "layer"));
  CHECK_THROWS_AS(RoutingPolicy::top_k(0).validate(8, "layer"), Error);
  CHECK_THROWS_AS(RoutingPolicy::top_k(9).validate(8, "layer"), Error);
  CHECK_THROWS_AS(RoutingPolicy::threshold(-0.1).validate(8, "layer"), Error);
  CHECK_THROWS_AS(RoutingPolicy::threshold(0.1, -1).validate(8, "layer"), Error);
  CHECK_THROWS_WITH(RoutingPolicy::top_k(9).validate(8, "layer 3 moe"),
                    Catch::Contains("layer 3 moe") && Catch::Contains("9") && Catch::Contains("8"));
}

TEST_CASE("RoutingPolicy: with() changes only the execution", "[model][moe]") {
  const auto policy = RoutingPolicy::threshold(0.3, 2).with(Execution::kSparse);
  CHECK(policy.execution == Execution::kSparse);
  CHECK(policy.with(Execution::kAuto) == RoutingPolicy::threshold(0.3, 2));
  CHECK(policy.to_string() == RoutingPolicy::threshold(0.3, 2).to_string());
}

TEST_CASE("parse_execution: reads auto, dense and sparse only", "[model][moe]") {
  CHECK(parse_execution("auto") == Execution::kAuto);
  CHECK(parse_execution("dense") == Execution::kDense);
  CHECK(parse_execution("sparse") == Execution::kSparse);
  CHECK_THROWS_AS(parse_execution(""), Error);
  CHECK_THROWS_AS(parse_execution("Dense"), Error);
}

}  // namespace dsmoe
