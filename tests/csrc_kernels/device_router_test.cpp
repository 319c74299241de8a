// A router on another device than the CPU, with its kernels.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/function.h>

#include "csrc_kernels/device_ops.h"
#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "csrc_kernels/router/router.h"
#include "support/fake_device.h"

namespace dsmoe {
namespace {

using device_ops::check;
using device_ops::Input;
using device_ops::Kind;
using device_ops::Tensors;

struct Sizes {
  int64_t n_tokens, n_experts, d_model, d_hidden;
  bool gated() const { return d_hidden > 0; }
};

// x, out, gate, up.
std::vector<Input> inputs_of(RandomTensors& random, const Sizes& s) {
  const auto hidden = [&] {
    return s.gated() ? random.normal({s.d_hidden, s.d_model}) * 0.5 : at::Tensor();
  };
  return {{random.normal({s.n_tokens, s.d_model})},
          {random.normal({s.n_experts, s.gated() ? s.d_hidden : s.d_model}) * 0.3, Kind::kWide},
          {hidden()},
          {hidden()}};
}

RouterWeights weights_of(const Tensors& x, at::ScalarType type) {
  RouterWeights weights{.gate = x[2], .up = x[3], .hidden = {}, .out = x[1]};
  if (x[2].defined()) weights.hidden = at::cat({x[2].detach(), x[3].detach()}, 0).to(type);
  return weights;
}

RouterResult run(const Tensors& x, at::ScalarType type, bool sigmoid = false) {
  return route(x[0], weights_of(x, type), sigmoid);
}

// Calls of a kernel while it lives.
int n_hidden_calls = 0;
decltype(ExpertGemvKernels<float>::hidden) hidden_kernel = nullptr;
struct CountHiddenCalls {
  CountHiddenCalls() {
    n_hidden_calls = 0;
    hidden_kernel = device_kernels<ExpertGemvKernels<float>>().hidden;
    device_kernels<ExpertGemvKernels<float>>().hidden = [](Activation activation,
                                                           const GemvHidden<float>& args) {
      ++n_hidden_calls;
      hidden_kernel(activation, args);
    };
  }
  ~CountHiddenCalls() { device_kernels<ExpertGemvKernels<float>>().hidden = hidden_kernel; }
  CountHiddenCalls(const CountHiddenCalls&) = delete;
  CountHiddenCalls& operator=(const CountHiddenCalls&) = delete;
};

// Whether the result has our gradient, not ATen's.
bool is_ours(const RouterResult& result) {
  return result.logits.grad_fn()->name().find("Route") != std::string::npos;
}

}  // namespace

TEST_CASE("device: route", "[device_ops]") {
  test_device();
  REQUIRE(device_kernels<RouterKernels<Bfloat16, float>>().forward != nullptr);
  REQUIRE(device_kernels<RouterKernels<Bfloat16, float>>().backward != nullptr);
  RandomTensors random(21);
  // No tokens; one token, one expert; odd sizes; more tokens than go row by row, two groups of
  // experts; the most experts.
  for (const auto& s : {Sizes{0, 3, 8, 4},
                        Sizes{1, 1, 5, 0},
                        Sizes{1, 7, 16, 9},
                        Sizes{37, 5, 24, 33},
                        Sizes{300, 70, 12, 72},
                        Sizes{300, 3, 67, 0},
                        Sizes{9, kMostRouterExperts, 8, 0}}) {
    for (const bool sigmoid : {false, true}) {
      CAPTURE(s.n_tokens, s.n_experts, s.d_model, s.d_hidden, sigmoid);
      check(
          [&](const Tensors& x, at::ScalarType type) {
            const auto result = run(x, type, sigmoid);
            CHECK(is_ours(result));
            return Tensors{result.logits, result.probs};
          },
          inputs_of(random, s));
    }
  }
}

TEST_CASE("device: route's gradient through one output, and of some inputs", "[device_ops]") {
  RandomTensors random(22);
  const Sizes sizes{70, 6, 16, 20};
  for (const bool sigmoid : {false, true}) {
    for (const bool probs : {false, true}) {
      CAPTURE(sigmoid, probs);
      check(
          [&](const Tensors& x, at::ScalarType type) {
            const auto result = run(x, type, sigmoid);
            return Tensors{probs ? result.probs : result.logits};
          },
          inputs_of(random, sizes));
    }
  }
  // Frozen one after the other.
  for (size_t frozen = 0; frozen < 4; ++frozen) {
    CAPTURE(frozen);
    check(
        [&](Tensors x, at::ScalarType type) {
          x[frozen] = x[frozen].detach();
          const auto result = run(x, type);
          return Tensors{result.logits, result.probs};
        },
        inputs_of(random, sizes));
  }
}

TEST_CASE("device: more experts than route's kernels take go to ATen", "[device_ops]") {
  RandomTensors random(23);
  for (const bool sigmoid : {false, true}) {
    check(
        [&](const Tensors& x, at::ScalarType type) {
          const auto result = run(x, type, sigmoid);
          CHECK(is_ours(result) == x[0].is_cpu());
          return Tensors{result.logits, result.probs};
        },
        inputs_of(random, {5, kMostRouterExperts + 1, 8, 4}),
        {at::kFloat});
  }
}

TEST_CASE("device: a handful of tokens route with a product per row of a weight", "[device_ops]") {
  const auto device = test_device();
  for (const int64_t n_tokens : {int64_t{1}, kMostGemvTokens, kMostGemvTokens + 1}) {
    RandomTensors random(24);
    CAPTURE(n_tokens);
    Tensors inputs;
    for (const auto& input : inputs_of(random, {n_tokens, 6, 24, 10})) {
      inputs.push_back(input.value.to(at::kFloat).requires_grad_(true));
    }
    Tensors there;
    for (const auto& x : inputs) there.push_back(x.detach().to(device).requires_grad_(true));
    const CountHiddenCalls counts;
    CHECK(run(there, at::kFloat).logits.requires_grad());
    CHECK(n_hidden_calls == 0);  // it has no gradient
    const at::NoGradGuard no_grad;
    const auto got = run(there, at::kFloat);
    const auto expected = run(inputs, at::kFloat);
    CHECK(n_hidden_calls == (n_tokens <= kMostGemvTokens ? 1 : 0));
    CHECK(max_difference(got.logits.cpu(), expected.logits) < 1e-4);
    CHECK(max_difference(got.probs.cpu(), expected.probs) < 1e-5);
  }
}

TEST_CASE("device: routing does not wait for its device", "[device_ops]") {
  if (!is_emulated()) return;  // the fake device is the one that tells
  const auto device = test_device();
  RandomTensors random(25);
  Tensors x;
  for (const auto& input : inputs_of(random, {3, 6, 24, 10})) {
    x.push_back(input.value.to(at::kFloat).to(device).requires_grad_(true));
  }
  const ForbidWaits forbidden;
  const auto result = run(x, at::kFloat);
  (result.logits.sum() + result.probs.square().sum()).backward();
  CHECK(x[2].grad().defined());
  const at::NoGradGuard no_grad;
  CHECK(run(x, at::kFloat).probs.defined());
}

}  // namespace dsmoe
