#include "distributed/agreement.h"

#include <catch2/catch.hpp>

#include "support/rank_threads.h"

namespace dsmoe {

TEST_CASE("check_agreement: equal values pass, also with one rank", "[distributed]") {
  RankGroup one_rank;
  check_agreement(one_rank, {{"config", "a"}});
  int64_t passed = 0;
  run_ranks(2, [&](RankGroup& group) {
    check_agreement(group, {{"config", "a: 1\nb: 2"}, {"data", ""}});
    if (group.rank() == 0) passed += 1;
  });
  CHECK(passed == 1);
}

TEST_CASE("check_agreement: the error of every rank names the rank, field and line that differ",
          "[distributed]") {
  std::vector<std::string> texts(3);
  run_ranks(3, [&](RankGroup& group) {
    const std::string config = group.rank() == 2 ? "a: 1\nb: 3\nc: 4" : "a: 1\nb: 2\nc: 4";
    try {
      check_agreement(group, {{"data", "same"}, {"config", config}});
    } catch (const Error& error) {
      texts[static_cast<size_t>(group.rank())] = error.what();
    }
  });
  for (const auto& text : texts) {
    CHECK(
        text ==
        "ranks: expected the same config on every rank, got 'b: 2' on rank 0 and 'b: 3' on rank 2");
  }
}

}  // namespace dsmoe
