#include "train/optimizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

at::Tensor parameter(at::IntArrayRef sizes, uint64_t seed) {
  auto tensor = at::randn(sizes, at::detail::createCPUGenerator(seed));
  return tensor.set_requires_grad(true);
}

// AdamW in double precision, one element at a time.
void reference_step(std::vector<double>& w,
                    std::vector<double>& m,
                    std::vector<double>& v,
                    const at::Tensor& gradient,
                    int64_t step,
                    double lr,
                    double decay,
                    const OptimizerConfig& config) {
  const auto* g = gradient.const_data_ptr<float>();
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] *= 1 - lr * decay;
    m[i] = config.beta1 * m[i] + (1 - config.beta1) * g[i];
    v[i] = config.beta2 * v[i] + (1 - config.beta2) * g[i] * g[i];
    const auto m_hat = m[i] / (1 - std::pow(config.beta1, step));
    const auto v_hat = v[i] / (1 - std::pow(config.beta2, step));
    w[i] -= lr * m_hat / (std::sqrt(v_hat) + config.eps);
  }
}

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const auto wide = tensor.detach().to(at::kDouble).contiguous();
  const auto* data = wide.const_data_ptr<double>();
  return {data, data + wide.numel()};
}

TEST_CASE("Optimizer: equals AdamW in double precision", "[train][optimizer]") {
  OptimizerConfig config;
  const NamedTensors parameters = {{"proj.weight", parameter({5, 7}, 1)},
                                   {"norm.weight", parameter({7}, 2)},
                                   {"experts.bias", parameter({6}, 3)}};
  const std::vector<double> decays = {config.weight_decay, 0.0, 0.0};
  Optimizer optimizer(parameters, config);
  std::vector<std::vector<double>> w, m, v;
  for (const auto& [name, tensor] : parameters) {
    w.push_back(to_doubles(tensor));
    m.emplace_back(w.back().size(), 0.0);
    v.emplace_back(w.back().size(), 0.0);
  }
  for (int64_t step = 1; step <= 6; ++step) {
    const auto lr = 1e-2 / static_cast<double>(step);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto gradient = parameter(parameters[i].second.sizes(), 10 * step + i).detach();
      auto target = parameters[i].second;
      target.mutable_grad() = gradient.clone();
      reference_step(w[i], m[i], v[i], gradient, step, lr, decays[i], config);
    }
    optimizer.step(lr);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto got = to_doubles(parameters[i].second);
    for (size_t j = 0; j < got.size(); ++j) CHECK(std::abs(got[j] - w[i][j]) <= 1e-6);
  }
}

TEST_CASE("Optimizer: clip measures the global norm and bounds it", "[train][optimizer]") {
  auto a = parameter({2}, 1);
  auto b = parameter({1, 1}, 2);
  Optimizer optimizer(NamedTensors{{"a", a}, {"b", b}}, {});
  a.mutable_grad() = at::full({2}, 2.0f);     // 4 + 4
  b.mutable_grad() = at::full({1, 1}, 1.0f);  // + 1: norm 3
  CHECK(optimizer.prepare_clipping(0) == Approx(3.0));
  CHECK(optimizer.prepare_clipping(6.0) == Approx(3.0));
  CHECK(a.grad()[0].item<double>() == 2.0);
}

TEST_CASE("Optimizer: a clipped step is the step of scaled gradients", "[train][optimizer]") {
  auto clipped = parameter({4, 3}, 1);
  auto scaled = clipped.detach().clone().set_requires_grad(true);
  Optimizer clipping(NamedTensors{{"a", clipped}}, {});
  Optimizer scaling(NamedTensors{{"a", scaled}}, {});
  for (uint64_t step = 1; step <= 3; ++step) {
    const auto gradient = parameter({4, 3}, 10 + step).detach();
    clipped.mutable_grad() = gradient.clone();
    const double norm = clipping.prepare_clipping(0.5);
    CHECK(norm == Approx(gradient.norm().item<double>()));
    scaled.mutable_grad() = gradient * (0.5 / norm);
    clipping.step(0.1);
    scaling.step(0.1);
    CHECK((clipped - scaled).abs().max().item<double>() < 1e-5);
  }
  // The scale belongs to one step.
  clipped.mutable_grad() = parameter({4, 3}, 20).detach();
  scaled.mutable_grad() = clipped.grad().clone();
  clipping.step(0.1);
  scaling.step(0.1);
  CHECK((clipped - scaled).abs().max().item<double>() < 1e-5);
}

TEST_CASE("Optimizer: a parameter without gradient stays unchanged", "[train][optimizer]") {
  auto a = parameter({2, 2}, 1);
  auto b = parameter({2, 2}, 2);
  const auto before = b.detach().clone();
  Optimizer optimizer(NamedTensors{{"a", a}, {"b", b}}, {});
  a.mutable_grad() = at::ones({2, 2});
  optimizer.step(0.1);
  CHECK(at::equal(b.detach(), before));
  optimizer.clear_gradients();
  CHECK_FALSE(a.grad().defined());
  CHECK(optimizer.prepare_clipping(1.0) == 0.0);
}

TEST_CASE("Optimizer: restored state continues bit for bit", "[train][optimizer]") {
  auto a = parameter({3, 2}, 1);
  Optimizer first(NamedTensors{{"a", a}}, {});
  a.mutable_grad() = parameter({3, 2}, 2).detach();
  first.step(0.1);

  auto copy = a.detach().clone().set_requires_grad(true);
  Optimizer second(NamedTensors{{"a", copy}}, {});
  const auto saved = first.named_state();
  const auto target = second.named_state();
  for (size_t i = 0; i < saved.size(); ++i) {
    CHECK(saved[i].first == target[i].first);
    target[i].second.copy_(saved[i].second);
  }
  const auto gradient = parameter({3, 2}, 3).detach();
  a.mutable_grad() = gradient.clone();
  copy.mutable_grad() = gradient.clone();
  first.step(0.05);
  second.step(0.05);
  CHECK(at::equal(a.detach(), copy.detach()));
}

TEST_CASE("Optimizer: a name given twice is refused", "[train][optimizer]") {
  CHECK_THROWS_AS(Optimizer(NamedTensors{{"a", parameter({1}, 1)}, {"a", parameter({1}, 2)}}, {}),
                  Error);
}

}  // namespace

TEST_CASE("Optimizer: a shard updates its elements as the whole optimizer would",
          "[train][optimizer]") {
  const auto run = [](OptimizerShard shard) {
    const NamedTensors parameters = {{"a", parameter({5, 7}, 1)}, {"b", parameter({9}, 2)}};
    Optimizer optimizer(parameters, {}, shard);
    for (uint64_t step = 0; step < 3; ++step) {
      for (const auto& [name, tensor] : parameters) {
        tensor.mutable_grad() =
            at::randn(tensor.sizes(), at::detail::createCPUGenerator(10 + step));
      }
      optimizer.prepare_clipping(1.0);
      const auto version = parameters[0].second._version();
      optimizer.step(1e-2);
      CHECK(parameters[0].second._version() > version);  // copies of it follow
    }
    return std::pair(optimizer.moments().clone(), parameters);
  };
  // 44 elements: 22 each, the first shard's all in `a`.
  const auto [moments, whole] = run({});
  const auto [first_moments, first] = run({.index = 0, .count = 2});
  CHECK(at::equal(first_moments, moments.narrow(1, 0, 22)));
  const auto flat = [](const at::Tensor& t) { return t.detach().view(-1); };
  CHECK(at::equal(flat(first[0].second).narrow(0, 0, 22), flat(whole[0].second).narrow(0, 0, 22)));
  CHECK(at::equal(flat(first[0].second).narrow(0, 22, 13),
                  flat(parameter({5, 7}, 1)).narrow(0, 22, 13)));
  CHECK(at::equal(first[1].second, parameter({9}, 2)));
  const auto [second_moments, second] = run({.index = 1, .count = 2});
  CHECK(at::equal(second_moments, moments.narrow(1, 22, 22)));
  CHECK(at::equal(second[1].second, whole[1].second));
}

}  // namespace dsmoe
