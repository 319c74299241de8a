// Behaviour of a group when its backend fails, over a fake that fails on request; NCCL's backend
// has the same interface.
#include <ATen/ops/ones.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>

#include "support/fake_backend.h"
#include "support/rank_threads.h"

namespace dsmoe {
namespace {

constexpr double kGrace = 0.3;
constexpr double kShort = 1.5;  // where something hangs: the test waits for it
constexpr double kLong = 60;    // where nothing hangs: a busy machine is no failure

struct Report {
  std::string thrown;                   // by the group's constructor or its collectives
  std::vector<std::string> on_failure;  // texts that the handler received
};

// Two ranks that add a tensor up to ten times, in steps from 1 on: the k-th collective is that of
// step k.
std::vector<Report> run_with(FakeNetwork& network, double limit_seconds) {
  std::vector<Report> reports(2);
  std::vector<std::thread> threads;
  const auto store = c10::make_intrusive<c10d::HashStore>();
  for (int64_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      auto& report = reports[static_cast<size_t>(rank)];
      const RankGroupConfig config{
          .setup_timeout_seconds = limit_seconds / 3,
          .step_timeout_seconds = limit_seconds,
          .on_failure = [&](const std::string& text) { report.on_failure.push_back(text); },
          .grace_seconds = kGrace};
      try {
        RankGroup group(store, rank, 2, config, network.make_backend());
        for (int64_t step = 1; step <= 10; ++step) {
          group.begin_step(step);
          group.all_reduce_sum(at::ones({3}), "adding threes");
        }
      } catch (const RankFailure& failure) {
        report.thrown = failure.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return reports;
}

// Log lines after the first abort.
std::vector<std::string> after_abort(const FakeNetwork& network, int64_t rank) {
  const auto log = network.log(rank);
  const auto abort = std::find(log.begin(), log.end(), "abort");
  return abort == log.end() ? std::vector<std::string>{"no abort"}
                            : std::vector<std::string>(abort + 1, log.end());
}

TEST_CASE("RankGroup: a backend that works is not aborted", "[distributed][failure]") {
  FakeNetwork network(2);
  const auto reports = run_with(network, kLong);
  for (int64_t rank = 0; rank < 2; ++rank) {
    CHECK(reports[static_cast<size_t>(rank)].thrown.empty());
    CHECK(reports[static_cast<size_t>(rank)].on_failure.empty());
    const auto log = network.log(rank);
    CHECK(log.size() == 10);
    CHECK(std::count(log.begin(), log.end(), "all-reduce 3") == 10);
  }
}

TEST_CASE("RankGroup: a rank that cannot set up fails, and the other does not wait forever",
          "[distributed][failure]") {
  FakeNetwork network(2, {.rank = 1, .throws_at = 0});
  const auto reports = run_with(network, kShort);
  CHECK_THAT(reports[1].thrown,
             Catch::Matches("rank 1 of 2: before the first step: connecting to the other ranks "
                            "failed after [0-9.]+ s, rank 0 on this host was running when checked: "
                            "NCCL error: unhandled system error"));
  CHECK_THAT(reports[0].thrown,
             Catch::Matches("rank 0 of 2: step 1: adding threes failed after [0-9.]+ s, rank 1 on "
                            "this host was running when checked: it does not return; no step is "
                            "finished"));
  for (const auto& report : reports) {
    CHECK(report.on_failure == std::vector<std::string>{report.thrown});
  }
  CHECK(network.log(1).empty());
  CHECK(after_abort(network, 0).empty());
}

TEST_CASE("RankGroup: a failure in the k-th collective ends both ranks' collectives",
          "[distributed][failure]") {
  const int64_t k = GENERATE(1, 5, 10);
  FakeNetwork network(2, {.rank = 1, .throws_at = k});
  const auto reports = run_with(network, kLong);
  CAPTURE(k);
  const auto where = "step " + std::to_string(k) + ": adding threes failed after ";
  const auto last =
      k == 1 ? "no step is finished" : "the last finished step is " + std::to_string(k - 1);
  CHECK_THAT(
      reports[1].thrown,
      Catch::Contains(where) && Catch::EndsWith("NCCL error: remote process exited; " + last));
  CHECK_THAT(reports[0].thrown,
             Catch::Contains(where) && Catch::Contains("connection closed by peer"));
  for (int64_t rank = 0; rank < 2; ++rank) {
    const auto& report = reports[static_cast<size_t>(rank)];
    CHECK(report.on_failure == std::vector<std::string>{report.thrown});
    CHECK(after_abort(network, rank).empty());
    CHECK(network.log(rank).size() == static_cast<size_t>(k) + 1);  // and the abort
  }
}

TEST_CASE("RankGroup: after a failure every collective rethrows it and starts nothing",
          "[distributed][failure]") {
  FakeNetwork network(2, {.rank = 1, .throws_at = 1});
  std::vector<std::string> first(2), second(2);
  std::atomic<int> n_begun = 0;
  const auto work = [&](RankGroup& group) {
    const auto rank = static_cast<size_t>(group.rank());
    try {
      group.barrier("waiting");
    } catch (const RankFailure& failure) {
      first[rank] = failure.what();
    }
    try {
      group.run("averaging the gradients", [&] { ++n_begun; });
    } catch (const RankFailure& failure) {
      second[rank] = failure.what();
    }
  };
  REQUIRE_THROWS_AS(run_ranks(2, work, {}, network.make_backend()), RankFailure);
  CHECK(n_begun == 0);
  for (int64_t rank = 0; rank < 2; ++rank) {
    const auto index = static_cast<size_t>(rank);
    CHECK_THAT(first[index], Catch::Contains("waiting failed after"));
    CHECK(second[index] == first[index]);
    CHECK(after_abort(network, rank).empty());
  }
}

TEST_CASE("RankGroup: a collective that hangs is ended by the watchdog within its bound",
          "[distributed][failure]") {
  FakeNetwork network(2, {.rank = 1, .hangs_at = 3});
  const auto reports =
      run_with(network, kShort);  // returns; otherwise CTest's timeout ends the test
  CHECK_THAT(reports[1].thrown,
             Catch::Matches("rank 1 of 2: step 3: adding threes failed after [0-9.]+ s, .*: "
                            "(it does not return|NCCL error: connection closed by peer); .*"));
  const auto hung = [](const Report& report) {
    return report.thrown.find("it does not return") != std::string::npos;
  };
  CHECK((hung(reports[0]) || hung(reports[1])));
  for (int64_t rank = 0; rank < 2; ++rank) {
    const auto& report = reports[static_cast<size_t>(rank)];
    CHECK(report.on_failure == std::vector<std::string>{report.thrown});  // once, though two saw it
    CHECK(after_abort(network, rank).empty());
  }
}

TEST_CASE("RankGroup: an abort that fails is part of the report", "[distributed][failure]") {
  FakeNetwork network(2, {.rank = 1, .throws_at = 2, .abort_throws = true});
  const auto reports = run_with(network, kLong);
  CHECK_THAT(reports[1].thrown,
             Catch::Contains("remote process exited; the last finished step is 1; aborting failed: "
                             "ncclCommAbort: invalid usage"));
  CHECK(reports[1].on_failure == std::vector<std::string>{reports[1].thrown});
}

TEST_CASE("RankGroup: an abort that hangs does not delay the report", "[distributed][failure]") {
  FakeNetwork network(2, {.rank = 1, .throws_at = 2, .abort_hangs = true});
  const auto reports = run_with(network, kShort);
  CHECK_THAT(reports[1].thrown, Catch::EndsWith("; aborting did not end within 0.1 s"));
  CHECK(reports[1].on_failure == std::vector<std::string>{reports[1].thrown});
  CHECK_THAT(reports[0].thrown, Catch::Contains("it does not return"));
}

}  // namespace
}  // namespace dsmoe
