#include "train/losses.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "model/loss/mutual_information.h"
#include "model/loss/router_losses.h"

namespace dsmoe {
namespace {

constexpr int64_t kVocab = 11;

at::Tensor normal(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kDouble)
      .set_requires_grad(true);
}

RoutingRecord make_record(at::IntArrayRef sizes, uint64_t seed) {
  RoutingRecord record;
  record.router_logits = normal(sizes, seed);
  record.router_probs = at::softmax(record.router_logits, -1);
  record.selected = at::ones_like(record.router_probs).to(at::kBool);
  return record;
}

// Two layers with experts of both kinds.
ModelOutput make_output(int64_t batch, int64_t seq, uint64_t seed) {
  ModelOutput output;
  output.logits = normal({batch, seq, kVocab}, seed);
  for (uint64_t layer = 0; layer < 2; ++layer) {
    output.moe.push_back(make_record({batch, seq, 5}, seed + 10 + layer));
    output.moa.push_back(make_record({batch, seq, 3}, seed + 20 + layer));
  }
  return output;
}

at::Tensor make_targets(int64_t batch, int64_t seq) {
  return at::randint(0, kVocab, {batch, seq}, at::detail::createCPUGenerator(5), at::kLong);
}

// The value of one row of the table.
at::Tensor value_of(const Loss& loss, const std::string& name) {
  const auto names = loss_names();
  const auto found = std::find(names.begin(), names.end(), name);
  REQUIRE(found != names.end());
  return loss.values.at(static_cast<size_t>(found - names.begin()));
}

LossConfig no_weights() {
  LossConfig config;
  config.moe_mi_weight = 0;
  config.moa_mi_weight = 0;
  config.sparsity_weight = 0;
  return config;
}

TEST_CASE("compute_loss: all weights zero give the language-model loss bit for bit",
          "[train][losses]") {
  const auto output = make_output(3, 4, 1);
  const auto targets = make_targets(3, 4);
  const auto loss = compute_loss(output, targets, no_weights());
  const auto expected = at::cross_entropy_loss(output.logits.flatten(0, 1), targets.flatten());
  CHECK(at::equal(loss.total, expected));
  CHECK(value_of(loss, "moe_mi").item<double>() < 0.0);
  CHECK_FALSE(value_of(loss, "moe_mi").requires_grad());
  loss.total.backward();
  CHECK_FALSE(output.moe[0].router_logits.grad().defined());
}

TEST_CASE("compute_loss: layers are summed and each kind has its own weight", "[train][losses]") {
  const auto output = make_output(3, 4, 2);
  const auto targets = make_targets(3, 4);
  LossConfig config = no_weights();
  const double lm = compute_loss(output, targets, config).total.item<double>();
  double moe = 0;
  double moa = 0;
  double balance = 0;
  double z = 0;
  for (size_t i = 0; i < 2; ++i) {
    moe += mutual_information_loss(output.moe[i].router_logits).item<double>();
    moa += mutual_information_loss(output.moa[i].router_logits).item<double>();
    for (const auto* record : {&output.moe[i], &output.moa[i]}) {
      balance += switch_balance_loss(record->router_probs, record->selected).item<double>();
      z += router_z_loss(record->router_logits).item<double>();
    }
  }
  config.moe_mi_weight = 0.5;
  CHECK(compute_loss(output, targets, config).total.item<double>() == Approx(lm + 0.5 * moe));
  config.moa_mi_weight = 0.25;
  CHECK(compute_loss(output, targets, config).total.item<double>() ==
        Approx(lm + 0.5 * moe + 0.25 * moa));
  config.switch_weight = 2.0;
  config.z_weight = 0.125;
  CHECK(compute_loss(output, targets, config).total.item<double>() ==
        Approx(lm + 0.5 * moe + 0.25 * moa + 2.0 * balance + 0.125 * z));
}

TEST_CASE(
    "compute_loss: sigmoid routers have a sparsity term, the mean over layers, and no MI or z",
    "[train][losses]") {
  auto output = make_output(3, 4, 6);
  output.moe_activation = RouterActivation::kSigmoid;
  output.moa.clear();
  const auto targets = make_targets(3, 4);
  double mean_gate = 0;
  for (auto& record : output.moe) {
    record.router_probs = at::sigmoid(record.router_logits);
    record.selected = record.router_probs.gt(0.5);
    mean_gate += (record.router_probs * record.selected).mean().item<double>() / 2;
  }
  LossConfig config = no_weights();
  config.moe_mi_weight = 0.5;
  config.z_weight = 0.5;
  const double lm = compute_loss(output, targets, no_weights()).total.item<double>();
  CHECK(compute_loss(output, targets, config).total.item<double>() == Approx(lm).epsilon(1e-12));
  config.sparsity_weight = 2.0;
  const auto loss = compute_loss(output, targets, config);
  CHECK_FALSE(value_of(loss, "moe_mi").defined());
  CHECK_FALSE(value_of(loss, "z").defined());
  CHECK(value_of(loss, "sparsity").item<double>() == Approx(mean_gate).epsilon(1e-12));
  CHECK(loss.total.item<double>() == Approx(lm + 2.0 * mean_gate).epsilon(1e-12));
  const auto halves = compute_loss(output, targets, config, 2);
  CHECK(value_of(halves, "sparsity").item<double>() == Approx(mean_gate / 2).epsilon(1e-12));
}

// The gradient of one tensor when a batch of 4 is computed as 2 micro-batches of 2, and whole.
struct Split {
  at::Tensor whole_gradient;
  at::Tensor split_gradient;
  double whole_mi;
  double split_mi;
};

Split split_batch(MiScope scope) {
  LossConfig config;
  config.mi_scope = scope;
  config.moe_mi_weight = 0.7;
  config.moa_mi_weight = 0.3;
  const auto whole = make_output(4, 3, 3);
  const auto targets = make_targets(4, 3);
  const auto whole_loss = compute_loss(whole, targets, config);
  whole_loss.total.backward();

  std::vector<ModelOutput> halves(2);
  StepRoutingSum sum;
  for (int64_t half = 0; half < 2; ++half) {
    auto& output = halves[static_cast<size_t>(half)];
    const auto cut = [&](const at::Tensor& tensor) {
      return tensor.detach().narrow(0, 2 * half, 2).clone().set_requires_grad(true);
    };
    output.logits = cut(whole.logits);
    for (size_t i = 0; i < 2; ++i) {
      for (auto [from, to] :
           {std::pair(&whole.moe[i], &output.moe), {&whole.moa[i], &output.moa}}) {
        RoutingRecord record;
        record.router_logits = cut(from->router_logits);
        record.router_probs = at::softmax(record.router_logits, -1);
        record.selected = from->selected.narrow(0, 2 * half, 2);
        to->push_back(record);
      }
    }
    sum.add(output);
  }
  const auto routing = scope == MiScope::kGlobal ? sum.mean() : StepRouting{};
  Loss total;
  for (int64_t half = 0; half < 2; ++half) {
    const auto& output = halves[static_cast<size_t>(half)];
    const auto loss = compute_loss(output, targets.narrow(0, 2 * half, 2), config, 2, routing);
    loss.total.backward();
    accumulate(total, loss);
  }
  return {whole.moe[1].router_logits.grad(),
          at::cat({halves[0].moe[1].router_logits.grad(), halves[1].moe[1].router_logits.grad()}),
          value_of(whole_loss, "moe_mi").item<double>(),
          value_of(total, "moe_mi").item<double>()};
}

TEST_CASE("compute_loss: the global scope does not depend on how the batch is cut",
          "[train][losses]") {
  const auto split = split_batch(MiScope::kGlobal);
  CHECK(std::abs(split.whole_mi - split.split_mi) < 1e-13);
  CHECK((split.whole_gradient - split.split_gradient).abs().max().item<double>() < 1e-14);
}

TEST_CASE("compute_loss: the local scope is the mean over micro-batches", "[train][losses]") {
  const auto split = split_batch(MiScope::kLocal);
  // Mutual information is concave in the mean distribution: splitting the batch lowers it.
  CHECK(split.split_mi > split.whole_mi + 1e-4);
  CHECK((split.whole_gradient - split.split_gradient).abs().max().item<double>() > 1e-6);
}

TEST_CASE("format_loss: the weighted terms as printed give the loss as printed",
          "[train][losses]") {
  CHECK(format_loss(3.41249, {{"lm", 3.4051, 1}, {"moe_mi", -0.614, 5e-4}}) ==
        "3.412 (lm 3.405 moe_mi -0.61*0.0005)");
  // A heavy term needs more digits, one without a weight none of them.
  CHECK(format_loss(12.3, {{"sparsity", 1.23456, 10}, {"z", 1234.5678, 0}}) ==
        "12.300 (sparsity 1.2346*10 z 1234.57*0)");
}

TEST_CASE("compute_loss: targets of another shape throw", "[train][losses]") {
  CHECK_THROWS_AS(compute_loss(make_output(2, 3, 4), make_targets(3, 2), {}), c10::Error);
}

}  // namespace
}  // namespace dsmoe
