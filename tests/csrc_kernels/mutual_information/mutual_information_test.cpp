#include "csrc_kernels/mutual_information/mutual_information.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/softmax.h>

#include <catch2/catch.hpp>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {

TEST_CASE("mutual_information: value and gradient equal the reference", "[csrc_kernels][loss]") {
  RandomTensors random(31);
  for (const int64_t n_rows : {1, 7, 300}) {
    for (const bool masked : {false, true}) {
      for (const bool with_mean : {false, true}) {
        CAPTURE(n_rows, masked, with_mean);
        const auto ours = random.leaf({n_rows, 5}, 2.0);
        const auto theirs = leaf_copy(ours);
        const auto counted = masked ? random.normal({n_rows}) > 0.0 : at::Tensor();
        const auto mean = with_mean ? at::softmax(random.normal({5}), 0) : at::Tensor();
        const int64_t n_tokens = with_mean ? 999 : 0;
        const auto loss = mutual_information(ours, counted, mean, n_tokens);
        const auto reference = mutual_information_ref(theirs, counted, mean, n_tokens);
        CHECK(max_difference(loss, reference) < 1e-13);
        (loss * 3.0).backward();
        (reference * 3.0).backward();
        CHECK(max_difference(ours.grad(), theirs.grad()) < 1e-13);
      }
    }
  }
}

TEST_CASE("mutual_information: float32 stays within its tolerance", "[csrc_kernels][loss]") {
  RandomTensors random(32);
  const auto exact = random.leaf({1000, 32}, 3.0);
  const auto narrow = exact.detach().to(at::kFloat).requires_grad_(true);
  const auto expected = mutual_information_ref(exact, {}, {}, 0);
  const auto loss = mutual_information(narrow, {}, {}, 0);
  CHECK(max_difference(loss.to(at::kDouble), expected) < 1e-5);
  loss.backward();
  expected.backward();
  CHECK(max_difference(narrow.grad().to(at::kDouble) * 1000.0, exact.grad() * 1000.0) < 1e-5);
}

TEST_CASE("mutual_information: one and two threads give the same bits", "[csrc_kernels][loss]") {
  const int before = at::get_num_threads();
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    RandomTensors random(33);
    const auto logits = random.normal({2001, 16}, at::kFloat).requires_grad_(true);
    auto loss = mutual_information(logits, {}, {}, 0);
    loss.backward();
    return std::pair{loss.detach(), logits.grad()};
  };
  const auto one = run(1);
  const auto two = run(2);
  at::set_num_threads(before);
  CHECK(at::equal(one.first, two.first));
  CHECK(at::equal(one.second, two.second));
}

TEST_CASE("mutual_information: wrong shapes and types throw", "[csrc_kernels][loss]") {
  RandomTensors random(34);
  const auto logits = random.normal({4, 3});
  CHECK_THROWS_AS(mutual_information(random.normal({4}), {}, {}, 0), c10::Error);
  CHECK_THROWS_AS(mutual_information(random.normal({4, 3}, at::kBFloat16), {}, {}, 0), c10::Error);
  CHECK_THROWS_AS(mutual_information(logits, random.normal({4}), {}, 0), c10::Error);
  CHECK_THROWS_AS(mutual_information(logits, random.normal({3}) > 0, {}, 0), c10::Error);
  CHECK_THROWS_AS(mutual_information(logits, {}, random.normal({4}), 1), c10::Error);
}

}  // namespace dsmoe
