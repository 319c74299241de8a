// Sparse and dense execution of one layer in alternation: run with the tag [.bench].
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <utility>
#include <vector>

#include "model/module_testing.h"
#include "model/moe/ds_moe_layer.h"

namespace dsmoe {
namespace {

double seconds_of(DSMoELayer& layer, const at::Tensor& x, const RoutingPolicy& policy) {
  const auto start = std::chrono::steady_clock::now();
  layer(x, policy);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

TEST_CASE("DSMoELayer: time of 4 of 32 experts for 512 tokens at d_model 512 over that of all",
          "[.bench][model][moe]") {
  const at::NoGradGuard no_grad;
  FfnConfig config;
  config.n_experts = 32;
  config.d_expert = 64;
  DSMoELayer layer(512, config, Biases::kNone);
  randomise(*layer, 3, 0.05);
  const auto x = RandomTensors(4).normal({1, 512, 512}).to(at::kFloat);
  for (auto& parameter : layer->parameters()) parameter.set_data(parameter.to(at::kFloat));
  const auto dense = RoutingPolicy::top_k(4).with(Execution::kDense);
  const auto sparse = dense.with(Execution::kSparse);
  std::vector<double> ratios;
  for (int i = 0; i < 25; ++i) {
    const double of_dense = seconds_of(layer, x, dense);
    ratios.push_back(seconds_of(layer, x, sparse) / of_dense);
  }
  std::printf("sparse over dense wall time, %d threads: %.3f\n",
              at::get_num_threads(),
              median(std::move(ratios)));
}

}  // namespace dsmoe
