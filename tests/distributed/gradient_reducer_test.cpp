#include "distributed/gradient_reducer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tanh.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "csrc_kernels/random_tensors.h"
#include "support/fake_backend.h"
#include "support/rank_threads.h"

namespace dsmoe {
namespace {

constexpr int64_t kSteps = 3;
// Below either matrix's bytes: each is a bucket, also when their order is known.
const GradientReducerConfig kTwoBuckets{.bucket_mebibytes = 2e-4};

struct Net {
  at::Tensor first, second;

  explicit Net(uint64_t seed)
      : first(RandomTensors(seed).normal({8, 16}, at::kFloat).requires_grad_(true)),
        second(RandomTensors(seed + 1).normal({16, 4}, at::kFloat).requires_grad_(true)) {}

  std::vector<std::pair<std::string, at::Tensor>> parameters() const {
    return {{"first", first}, {"second", second}};
  }
  at::Tensor loss(int64_t batch) const {
    const auto x = RandomTensors(static_cast<uint64_t>(100 + batch)).normal({5, 8}, at::kFloat);
    return at::mm(at::tanh(at::mm(x, first)), second).pow(2).mean();
  }
  void clear() {
    first.mutable_grad() = at::Tensor();
    second.mutable_grad() = at::Tensor();
  }
};

// The gradient of the first matrix after each step of `n_micro` micro-batches a rank.
std::vector<at::Tensor> gradients_of_rank(RankGroup& group,
                                          int64_t n_micro,
                                          const GradientReducerConfig& config) {
  Net net(static_cast<uint64_t>(10 * group.rank()));  // ranks start apart: rank 0's values count
  GradientReducer reducer(group, net.parameters(), config);
  std::vector<at::Tensor> gradients;
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int64_t micro = 0; micro < n_micro; ++micro) {
      const int64_t batch = (step * n_micro + micro) * group.world_size() + group.rank();
      reducer.backward(net.loss(batch), micro == n_micro - 1);
    }
    gradients.push_back(net.first.grad().clone());
    net.clear();
  }
  return gradients;
}

// Mean over ranks of sums over micro-batches, by one rank.
std::vector<at::Tensor> reference(int64_t size, int64_t n_micro) {
  Net net(0);
  std::vector<at::Tensor> gradients;
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int64_t i = 0; i < size * n_micro; ++i) net.loss(step * size * n_micro + i).backward();
    gradients.push_back(net.first.grad() / static_cast<double>(size));
    net.clear();
  }
  return gradients;
}

}  // namespace

TEST_CASE("GradientReducer: averages the sums of micro-batches over ranks", "[distributed]") {
  const auto [size, n_micro] = GENERATE(table<int64_t, int64_t>({{1, 2}, {2, 1}, {2, 3}, {4, 2}}));
  // Small buckets, so that there are two.
  const GradientReducerConfig config{.bucket_mebibytes = 3e-4};
  std::vector<std::vector<at::Tensor>> gradients(static_cast<size_t>(size));
  const auto work = [&](RankGroup& group) {
    gradients[static_cast<size_t>(group.rank())] = gradients_of_rank(group, n_micro, config);
  };
  if (size == 1) {
    RankGroup one_rank;
    work(one_rank);
  } else {
    run_ranks(size, work);
  }
  const auto expected = reference(size, n_micro);
  for (size_t step = 0; step < kSteps; ++step) {
    CAPTURE(size, n_micro, step);
    CHECK(at::allclose(gradients[0][step], expected[step], 1e-5, 1e-6));
    for (const auto& of_rank : gradients) CHECK(at::equal(of_rank[step], gradients[0][step]));
  }
}

TEST_CASE("GradientReducer: bfloat16 all-reduce rounds and keeps ranks bit-identical",
          "[distributed]") {
  std::vector<std::vector<at::Tensor>> gradients(2);
  run_ranks(2, [&](RankGroup& group) {
    gradients[static_cast<size_t>(group.rank())] =
        gradients_of_rank(group, 2, {.compress_bfloat16 = true});
  });
  const auto expected = reference(2, 2);
  for (size_t step = 0; step < kSteps; ++step) {
    CHECK(at::allclose(gradients[0][step], expected[step], 2e-2, 2e-3));
    CHECK_FALSE(at::allclose(gradients[0][step], expected[step], 1e-6, 1e-7));
    CHECK(at::equal(gradients[0][step], gradients[1][step]));
  }
}

TEST_CASE("GradientReducer: buckets are reduced in the last micro-batch's backward only",
          "[distributed]") {
  FakeNetwork network(2);
  run_ranks(
      2,
      [&](RankGroup& group) {
        const Net net(static_cast<uint64_t>(10 * group.rank()));
        GradientReducer reducer(group, net.parameters(), kTwoBuckets);
        for (int64_t micro = 0; micro < 3; ++micro) {
          network.note(group.rank(), "micro-batch");
          reducer.backward(net.loss(micro), micro == 2);
        }
        network.note(group.rank(), "step");
      },
      {},
      network.make_backend());
  for (int64_t rank = 0; rank < 2; ++rank) {
    auto log = network.log(rank);
    const auto first = std::find(log.begin(), log.end(), "micro-batch");
    // The weights of rank 0 before the first step: each parameter, in order.
    const std::vector<std::string> weights = {"broadcast 128", "broadcast 64"};
    CHECK(std::search(log.begin(), first, weights.begin(), weights.end()) != first);
    // The second matrix has its gradient first.
    CHECK(std::vector<std::string>(first, log.end() - 1) ==
          std::vector<std::string>{"micro-batch",
                                   "micro-batch",
                                   "micro-batch",
                                   "all-reduce 64",
                                   "all-reduce 128",
                                   "step"});
  }
}

TEST_CASE("GradientReducer: a failed reduction ends the backward pass and names the step",
          "[distributed][failure]") {
  // Counted in a run without a fault: the reducer begins with collectives of set-up.
  FakeNetwork healthy(2);
  const auto steps = [](FakeNetwork& network, RankGroup& group) {
    Net net(1);
    GradientReducer reducer(group, net.parameters(), kTwoBuckets);
    for (int64_t step = 1; step <= 2; ++step) {
      network.note(group.rank(), "step");
      group.begin_step(step);
      reducer.backward(net.loss(step), true);
      net.clear();
    }
  };
  run_ranks(
      2, [&](RankGroup& group) { steps(healthy, group); }, {}, healthy.make_backend());
  const auto log = healthy.log(0);
  const auto is_collective = [](const std::string& line) { return line != "step"; };
  const auto second_step =
      std::find(std::find(log.begin(), log.end(), "step") + 1, log.end(), "step");
  const auto before = std::count_if(log.begin(), second_step, is_collective);
  const auto last_bucket = std::find(second_step, log.end(), "all-reduce 128");
  REQUIRE(last_bucket != log.end());
  const auto k = before + std::count_if(second_step, last_bucket, is_collective);  // the first's

  FakeNetwork network(2, {.rank = 1, .throws_at = k});
  std::vector<std::string> failures(2);
  const auto fail = [&] {
    run_ranks(
        2,
        [&](RankGroup& group) {
          try {
            steps(network, group);
          } catch (const RankFailure& failure) {
            failures[static_cast<size_t>(group.rank())] = failure.what();
            throw;
          }
        },
        {},
        network.make_backend());
  };
  REQUIRE_THROWS_AS(fail(), RankFailure);
  for (int64_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(failures[static_cast<size_t>(rank)],
               Catch::Contains("step 2: averaging the gradients failed after"));
    CHECK(network.log(rank).back() == "abort");  // the second bucket is not begun
  }
}

TEST_CASE("GradientReducer: ranks with different shapes are refused", "[distributed]") {
  REQUIRE_THROWS_AS(run_ranks(2,
                              [&](RankGroup& group) {
                                Net net(1);
                                auto parameters = net.parameters();
                                if (group.rank() != 0) parameters.pop_back();
                                const GradientReducer reducer(group, parameters, {});
                              }),
                    RankFailure);
}

}  // namespace dsmoe
