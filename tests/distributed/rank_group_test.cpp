#include "distributed/rank_group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "support/rank_threads.h"

namespace dsmoe {

TEST_CASE("RankGroup: collectives work over three ranks", "[distributed]") {
  std::vector<at::Tensor> sums(3), sent(3), gathered(3);
  std::vector<std::vector<std::string>> texts(3);
  run_ranks(3, [&](RankGroup& group) {
    const auto rank = static_cast<size_t>(group.rank());
    sums[rank] = at::full({4}, static_cast<double>(group.rank() + 1), at::kDouble);
    group.all_reduce_sum(sums[rank], "sums");
    sent[rank] = at::full({2}, group.rank() == 0 ? 7.0 : 0.0);
    group.broadcast(sent[rank], "sevens");
    gathered[rank] = at::empty({3, 2}, at::kFloat);
    group.all_gather(gathered[rank], at::full({2}, static_cast<double>(group.rank())), "ranks");
    texts[rank] = group.all_gather(std::string(rank, 'x') + std::to_string(rank), "texts");
  });
  for (size_t rank = 0; rank < 3; ++rank) {
    CHECK(at::equal(sums[rank], at::full({4}, 6.0, at::kDouble)));
    CHECK(at::equal(sent[rank], at::full({2}, 7.0)));
    CHECK(at::equal(gathered[rank], at::arange(3, at::kFloat).unsqueeze(1).expand({3, 2})));
    CHECK(texts[rank] == std::vector<std::string>{"0", "x1", "xx2"});
  }
}

TEST_CASE("RankGroup: one rank needs no other rank", "[distributed]") {
  RankGroup group;
  auto tensor = at::full({2}, 3.0);
  group.all_reduce_sum(tensor, "sums");
  group.broadcast(tensor, "sums");
  auto out = at::empty({2}, at::kFloat);
  group.all_gather(out, tensor, "sums");
  CHECK(at::equal(out, at::full({2}, 3.0)));
  CHECK(group.all_gather("text", "texts") == std::vector<std::string>{"text"});
  CHECK(group.world_size() == 1);
}

TEST_CASE("RankGroup: missing ranks fail the rendezvous and are named", "[distributed]") {
  auto store = c10::make_intrusive<c10d::HashStore>();
  const auto set_up = [&] {
    RankGroup group(store, 1, 3, {.setup_timeout_seconds = 1}, gloo_backend());
  };
  REQUIRE_THROWS_AS(set_up(), RankFailure);
  REQUIRE_THROWS_WITH(set_up(),
                      Catch::Matches("rank 1 of 3: before the first step: waiting for the other "
                                     "ranks at an open store failed after 1\\.[0-9] s, the other "
                                     "ranks' processes are not known yet: these ranks did not "
                                     "come within the set-up timeout of 1.0 s: 0, 2"));
}

TEST_CASE("RankGroup: a store that never opens fails within the set-up timeout", "[distributed]") {
  std::promise<void> end;
  const RendezvousStore rendezvous{.name = "host:1",
                                   .open_store = [&]() -> c10::intrusive_ptr<c10d::Store> {
                                     end.get_future().wait();  // like a peer that does not answer
                                     throw std::runtime_error("ended");
                                   }};
  std::string text;
  const RankGroupConfig config{.setup_timeout_seconds = 0.2,
                               .step_timeout_seconds = 600,
                               .on_failure =
                                   [&](const std::string& failure) {
                                     text = failure;
                                     end.set_value();
                                   },
                               .grace_seconds = 0.3};
  REQUIRE_THROWS_AS(RankGroup(rendezvous, 1, 2, config, gloo_backend()), RankFailure);
  CHECK_THAT(text,
             Catch::Matches("rank 1 of 2: before the first step: opening the store at host:1 "
                            "failed after [0-9.]+ s, the other ranks' processes are not known "
                            "yet: it does not return"));
}

TEST_CASE("RankGroup: a stop request ends the wait for a store", "[distributed]") {
  std::promise<void> end;
  std::atomic<bool> stop = false;
  const RendezvousStore rendezvous{.name = "host:1",
                                   .open_store = [&]() -> c10::intrusive_ptr<c10d::Store> {
                                     stop = true;
                                     end.get_future().wait();
                                     throw std::runtime_error("ended");
                                   }};
  std::string text;
  const RankGroupConfig config{
      .setup_timeout_seconds = 600,
      .on_failure = [](const std::string&) {},
      .stop_requested = [&] { return stop.load(); },
      .on_stop =
          [&](const std::string& stopped) {
            text = stopped;
            end.set_value();
          },
  };
  REQUIRE_THROWS_AS(RankGroup(rendezvous, 1, 2, config, gloo_backend()), RankFailure);
  CHECK(text == "rank 1 of 2: stopped before the first step, while opening the store at host:1");
}

TEST_CASE("RankGroup: a stop request to one waiting rank makes all arrived ranks leave",
          "[distributed]") {
  const int64_t asked = GENERATE(0, 1);
  CAPTURE(asked);
  auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::string> texts(2);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      const auto index = static_cast<size_t>(rank);
      const RankGroupConfig config{
          .setup_timeout_seconds = 600,
          .stop_requested = [=] { return rank == asked; },
          .on_stop = [&, index](const std::string& text) { texts[index] = text; }};
      try {
        RankGroup(store, rank, 3, config, gloo_backend());
      } catch (const RankFailure&) {
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK(texts[rank] == "rank " + std::to_string(rank) +
                             " of 3: stopped before the first step, while waiting for the other "
                             "ranks at an open store");
  }
}

TEST_CASE("RankGroup: messages give the step, or the steps around it", "[distributed]") {
  struct Case {
    std::function<void(RankGroup&)> before;
    std::string says;
    std::string ends_with;
  };
  const auto [before, says, ends_with] = GENERATE(values<Case>({
      {[](RankGroup&) {}, "rank 0 of 2: before the first step: waiting failed", ": the other left"},
      {[](RankGroup& group) { group.finish_step(0); },
       "rank 0 of 2: before the first step: waiting failed",
       "; no step is finished"},
      {[](RankGroup& group) { group.finish_step(40); },  // resumed
       "rank 0 of 2: after step 40: waiting failed",
       "; the last finished step is 40"},
      {[](RankGroup& group) { group.begin_step(1); },
       "rank 0 of 2: step 1: waiting failed",
       "; no step is finished"},
      {[](RankGroup& group) { group.begin_step(12); },
       "rank 0 of 2: step 12: waiting failed",
       "; the last finished step is 11"},
      {[](RankGroup& group) {
         group.begin_step(12);
         group.finish_step(12);
       },
       "rank 0 of 2: after step 12: waiting failed",
       "; the last finished step is 12"},
  }));
  std::string text;
  const auto fail = [&, before = before](RankGroup& group) {
    if (group.rank() == 0) {
      before(group);
      try {
        group.run("waiting", [] { throw std::runtime_error("the other left"); });
      } catch (const RankFailure& failure) {
        text = failure.what();
      }
    }
    throw std::runtime_error("over");
  };
  REQUIRE_THROWS_AS(run_ranks(2, fail), std::runtime_error);
  CHECK_THAT(text, Catch::StartsWith(says) && Catch::Matches(".*" + ends_with));
}

TEST_CASE(
    "RankGroup: a rank that leaves fails the others, and their errors give step and operation",
    "[distributed]") {
  std::vector<std::string> failures(3);
  const auto leave_one = [&] {
    run_ranks(3, [&](RankGroup& group) {
      if (group.rank() == 2) throw std::runtime_error("left");  // its sockets close
      group.begin_step(12);
      try {
        group.barrier("waiting for everybody");
      } catch (const RankFailure& failure) {
        failures[static_cast<size_t>(group.rank())] = failure.what();
        throw;
      }
    });
  };
  REQUIRE_THROWS_AS(leave_one(), RankFailure);
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(failures[rank],
               Catch::Matches("rank [01] of 3: step 12: waiting for everybody failed after "
                              "[0-9.]+ s, .*; the last finished step is 11"));
  }
}

TEST_CASE("RankGroup: debug mode names collectives that differ between ranks", "[distributed]") {
  RankGroupConfig config{.setup_timeout_seconds = 20, .step_timeout_seconds = 20, .debug = true};
  std::vector<std::string> failures(2);
  const auto part_ways = [&] {
    run_ranks(
        2,
        [&](RankGroup& group) {
          group.barrier("together");
          group.begin_step(4);
          auto tensor = at::full({4}, 1.0);
          try {
            if (group.rank() == 0) {
              group.all_reduce_sum(tensor, "adding the losses");
            } else {
              group.broadcast(tensor, "sending the weights");
            }
          } catch (const RankFailure& failure) {
            failures[static_cast<size_t>(group.rank())] = failure.what();
            throw;
          }
        },
        config);
  };
  REQUIRE_THROWS_AS(part_ways(), RankFailure);
  CHECK_THAT(failures[0],
             Catch::Contains("step 4: adding the losses failed") &&
                 Catch::Contains("Detected mismatch between collectives on ranks") &&
                 Catch::Contains("ALLREDUCE") && Catch::Contains("BROADCAST"));
  CHECK_THAT(failures[1],
             Catch::Contains("step 4: sending the weights failed") &&
                 Catch::Contains("Detected mismatch between collectives on ranks"));
}

TEST_CASE("RankGroup: debug mode reports different shapes instead of ending the process",
          "[distributed]") {
  RankGroupConfig config{.setup_timeout_seconds = 20, .step_timeout_seconds = 20, .debug = true};
  const auto part_ways = [&] {
    run_ranks(
        2,
        [&](RankGroup& group) {
          group.all_reduce_sum(at::full({group.rank() == 0 ? 4 : 400}, 1.0), "adding the losses");
        },
        config);
  };
  REQUIRE_THROWS_WITH(part_ways(), Catch::Contains("Detected mismatch between collectives"));
}

namespace {

// Refuses every all-reduce.
class BrokenBackend : public c10d::Backend {
 public:
  using Backend::Backend;
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    (void)tensors;
    (void)options;
    throw std::runtime_error("cable pulled\nwith a long trace");
  }
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& out,
                                                 at::Tensor& in,
                                                 const c10d::AllgatherOptions& options) override {
    (void)options;
    for (int64_t i = 0; i < getSize(); ++i) out.view({getSize(), -1})[i].copy_(in);
    return c10::make_intrusive<Done>();
  }
  void setTimeout(std::chrono::milliseconds timeout) override { (void)timeout; }

 private:
  struct Done : c10d::Work {
    bool wait(std::chrono::milliseconds timeout) override {
      (void)timeout;
      return true;
    }
  };
};

}  // namespace

TEST_CASE("RankGroup: two collectives in flight end in any order of waits", "[distributed]") {
  std::vector<at::Tensor> gathered(3), sums(3);
  run_ranks(3, [&](RankGroup& group) {
    const auto rank = static_cast<size_t>(group.rank());
    gathered[rank] = at::full({6}, -1.0);
    gathered[rank].narrow(0, 2 * group.rank(), 2).fill_(static_cast<double>(group.rank()));
    const auto parts = at::arange(6, at::kFloat).view({3, 2}) + static_cast<double>(group.rank());
    sums[rank] = at::empty({2}, at::kFloat);
    auto gather = group.start_all_gather(gathered[rank], "weights");
    auto reduction = group.start_reduce_scatter(parts, sums[rank], "gradients");
    reduction.wait();
    gather.wait();
    gather.wait();
  });
  for (int64_t rank = 0; rank < 3; ++rank) {
    const auto i = static_cast<size_t>(rank);
    CHECK(at::equal(gathered[i], at::arange(3, at::kFloat).unsqueeze(1).expand({3, 2}).flatten()));
    // Elements 2 rank and 2 rank + 1 of every rank, plus 0 + 1 + 2.
    CHECK(at::equal(sums[i], 3 * (at::arange(2, at::kFloat) + static_cast<double>(2 * rank)) + 3));
  }
}

TEST_CASE("RankGroup: a reduce-scatter adds in the order of the ranks", "[distributed]") {
  const std::vector<float> values = {1e8F, 1.0F, -1e8F};
  std::vector<at::Tensor> sums(3);
  run_ranks(3, [&](RankGroup& group) {
    const auto rank = static_cast<size_t>(group.rank());
    sums[rank] = at::empty({1}, at::kFloat);
    group.start_reduce_scatter(at::full({3, 1}, values[rank]), sums[rank], "gradients").wait();
  });
  for (const auto& sum : sums) CHECK(sum.item<float>() == (values[0] + values[1]) + values[2]);
}

TEST_CASE("RankGroup: a backend's error reaches the failure handler in one line", "[distributed]") {
  const auto broken = [](const auto&, int64_t rank, int64_t size, double) {
    return c10::intrusive_ptr<c10d::Backend>(
        c10::make_intrusive<BrokenBackend>(static_cast<int>(rank), static_cast<int>(size)));
  };
  std::vector<std::string> texts(2);
  const auto add = [&](RankGroup& group) {
    auto tensor = at::full({1}, 1.0);
    try {
      group.all_reduce_sum(tensor, "summing the losses");
    } catch (const RankFailure& failure) {
      texts[static_cast<size_t>(group.rank())] = failure.what();
      throw;
    }
  };
  REQUIRE_THROWS_AS(run_ranks(2, add, {.setup_timeout_seconds = 20}, broken), RankFailure);
  const auto& text = texts[0];
  CHECK_THAT(text, Catch::Contains("summing the losses failed") && Catch::Contains("cable pulled"));
  CHECK(text.find('\n') == std::string::npos);
}

}  // namespace dsmoe
