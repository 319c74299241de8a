#include "csrc_kernels/adamw/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

AdamwSlot make_slot(RandomTensors& random, at::IntArrayRef shape, double weight_decay) {
  return {.parameter = random.normal(shape, at::kFloat),
          .gradient = random.normal(shape, at::kFloat),
          .exp_avg = at::zeros(shape, at::kFloat),
          .exp_avg_sq = at::zeros(shape, at::kFloat),
          .step = 0,
          .weight_decay = weight_decay};
}

// Odd sizes, one above a piece of 32,768.
std::vector<AdamwSlot> make_slots(uint64_t seed) {
  RandomTensors random(seed);
  return {make_slot(random, {7}, 0.0),
          make_slot(random, {33, 1001}, 0.1),
          make_slot(random, {3, 5}, 0.01),
          make_slot(random, {1}, 0.0)};
}

std::vector<at::Tensor> gradients_of(const std::vector<AdamwSlot>& slots) {
  std::vector<at::Tensor> gradients;
  for (const auto& slot : slots) gradients.push_back(slot.gradient);
  return gradients;
}

constexpr AdamwOptions kOptions{.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};

}  // namespace

TEST_CASE("adamw_step: the first step of one element by hand", "[csrc_kernels][optim]") {
  const auto one = [](double x) { return at::full({1}, x, at::kFloat); };
  const std::vector<AdamwSlot> slots{{.parameter = one(2.0),
                                      .gradient = one(-3.0),
                                      .exp_avg = one(0.0),
                                      .exp_avg_sq = one(0.0),
                                      .step = 1,
                                      .weight_decay = 0.5}};
  adamw_step(slots, {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 0.0});
  // 2 (1 - 0.1 * 0.5) - 0.1 * g / |g|
  CHECK(slots[0].parameter.item<double>() == Approx(2.0));
  CHECK(slots[0].exp_avg.item<double>() == Approx(-0.3));
  CHECK(slots[0].exp_avg_sq.item<double>() == Approx(0.45));
}

TEST_CASE("adamw_step: float64 is not rounded on the way", "[csrc_kernels][optim]") {
  const auto one = [](double x) { return at::full({1}, x, at::kDouble); };
  const std::vector<AdamwSlot> slots{{.parameter = one(1.0 / 3),
                                      .gradient = one(1.0 / 7),
                                      .exp_avg = one(0.0),
                                      .exp_avg_sq = one(0.0),
                                      .step = 1,
                                      .weight_decay = 0.0}};
  CHECK(std::abs(gradient_norm({one(3.0 / 7), one(4.0 / 7)}) - 5.0 / 7) < 1e-15);
  adamw_step(slots, {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 0.0});
  CHECK(std::abs(slots[0].parameter.item<double>() - (1.0 / 3 - 0.1)) < 1e-15);
  CHECK(std::abs(slots[0].exp_avg.item<double>() - 0.1 / 7) < 1e-16);
}

TEST_CASE("adamw_step: equals the reference over several steps", "[csrc_kernels][optim]") {
  auto ours = make_slots(61);
  auto theirs = make_slots(61);
  RandomTensors random(62);
  for (int64_t step = 1; step <= 5; ++step) {
    auto options = kOptions;
    options.gradient_scale = step == 3 ? 0.25 : 1.0;
    for (size_t i = 0; i < ours.size(); ++i) {
      ours[i].step = theirs[i].step = step;
      ours[i].gradient = random.normal(ours[i].parameter.sizes(), at::kFloat);
      theirs[i].gradient = ours[i].gradient.clone();
    }
    adamw_step(ours, options);
    adamw_step_ref(theirs, options);
    for (size_t i = 0; i < ours.size(); ++i) {
      CHECK(max_difference(ours[i].parameter, theirs[i].parameter) < 1e-6);
      CHECK(max_difference(ours[i].exp_avg, theirs[i].exp_avg) < 1e-6);
      CHECK(max_difference(ours[i].exp_avg_sq, theirs[i].exp_avg_sq) < 1e-6);
      CHECK(at::equal(ours[i].gradient, theirs[i].gradient));
    }
  }
}

TEST_CASE("gradient_norm: equals float64 and spreads NaN", "[csrc_kernels][optim]") {
  auto slots = make_slots(63);
  double sum = 0;
  for (const auto& slot : slots) sum += slot.gradient.to(at::kDouble).square().sum().item<double>();
  CHECK(gradient_norm(gradients_of(slots)) == Approx(std::sqrt(sum)).epsilon(1e-12));
  slots[1].gradient.view({-1})[33000] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(gradient_norm(gradients_of(slots))));
  CHECK(gradient_norm({}) == 0.0);
}

TEST_CASE("adamw: one and two threads give the same bits", "[csrc_kernels][optim]") {
  const int before = at::get_num_threads();
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    RandomTensors random(64);
    std::vector<AdamwSlot> slots{make_slot(random, {400, 1000}, 0.1)};
    slots[0].step = 1;
    const double norm = gradient_norm(gradients_of(slots));
    adamw_step(slots, kOptions);
    return std::pair{norm, slots[0].parameter};
  };
  const auto one = run(1);
  const auto two = run(2);
  at::set_num_threads(before);
  CHECK(one.first == two.first);
  CHECK(at::equal(one.second, two.second));
}

TEST_CASE("adamw_step: tells autograd that the parameters changed", "[csrc_kernels][optim]") {
  auto slots = make_slots(65);
  for (auto& slot : slots) slot.step = 1;
  const auto before = slots[0].parameter._version();
  adamw_step(slots, kOptions);
  CHECK(slots[0].parameter._version() > before);
}

TEST_CASE("adamw_step: wrong types and sizes throw", "[csrc_kernels][optim]") {
  auto slots = make_slots(66);
  slots[0].gradient = slots[0].gradient.to(at::kBFloat16);
  CHECK_THROWS_AS(adamw_step(slots, kOptions), c10::Error);
  slots = make_slots(66);
  slots[2].exp_avg = at::zeros({3}, at::kFloat);
  CHECK_THROWS_AS(adamw_step(slots, kOptions), c10::Error);
}

}  // namespace dsmoe
