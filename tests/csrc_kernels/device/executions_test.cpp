// Bodies with barriers and sums over lanes: blocks in another order and lanes that are threads give
// what lanes one after the other give, which device_ops_test.cpp and device_inference_test.cpp
// compare with references. Under ThreadSanitizer a missing barrier is a report.
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "csrc_kernels/decode_attention/body.h"
#include "csrc_kernels/device/executions.h"
#include "csrc_kernels/expert_gemv/body.h"
#include "csrc_kernels/linear_cross_entropy/body.h"
#include "csrc_kernels/mutual_information/body.h"
#include "csrc_kernels/residual_norm/body.h"
#include "csrc_kernels/rotary/body.h"

namespace dsmoe {
namespace {

std::vector<float> numbers(size_t n, uint64_t seed) { return stored<float>(test_numbers(n, seed)); }

/// The outputs of `run(emulation)` in every emulation are those of the sequential one.
template <typename Run>
void check_executions(Run run) {
  const std::vector<float> expected = run(Emulation::kSequential);
  for (const auto emulation : emulations()) {
    const std::vector<float> got = run(emulation);
    REQUIRE(got.size() == expected.size());
    float worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(got[i] - expected[i]));
    }
    CAPTURE(static_cast<int>(emulation));
    CHECK(worst < 1e-5F);
  }
}

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

TEST_CASE("residual_norm: executions agree", "[device]") {
  constexpr int64_t kRows = 3, kWidth = 70;
  const auto x = numbers(kRows * kWidth, 1);
  const auto y = numbers(kRows * kWidth, 2);
  const auto weight = numbers(kWidth, 3);
  const auto grad = numbers(kRows * kWidth, 4);
  check_executions([&](Emulation emulation) {
    std::vector<float> residual(kRows * kWidth), normed(kRows * kWidth), mean(kRows), scale(kRows);
    const ResidualNormRows<float, float> rows{.n_rows = kRows,
                                              .width = kWidth,
                                              .eps = 1e-5F,
                                              .x = x.data(),
                                              .y = y.data(),
                                              .weight = weight.data(),
                                              .bias = nullptr,
                                              .residual = residual.data(),
                                              .normed = normed.data(),
                                              .mean = mean.data(),
                                              .scale = scale.data()};
    run_emulated(emulation, device::residual_norm_shape(rows), [&](auto& ctx) {
      device::residual_norm_body<NormKind::kLayerNorm>(ctx, rows);
    });
    std::vector<float> grad_x(kRows * kWidth), partial(kRows * kWidth);
    const ResidualNormGradients<float, float> gradients{.grad_normed = grad.data(),
                                                        .grad_residual = nullptr,
                                                        .grad_x = grad_x.data(),
                                                        .grad_y = nullptr,
                                                        .partial_weight = partial.data(),
                                                        .partial_bias = nullptr};
    run_emulated(emulation, device::residual_norm_backward_shape(rows), [&](auto& ctx) {
      device::residual_norm_backward_body<NormKind::kLayerNorm>(ctx, rows, gradients);
    });
    auto all = normed;
    append(all, grad_x);
    append(all, partial);
    return all;
  });
}

TEST_CASE("mutual_information: executions agree", "[device]") {
  constexpr int64_t kRows = 70, kExperts = 5;
  const auto logits = numbers(kRows * kExperts, 5);
  const RouterRows<float> rows{
      .n_rows = kRows, .n_experts = kExperts, .logits = logits.data(), .counted = nullptr};
  check_executions([&](Emulation emulation) {
    const auto shape = device::mutual_information_sums_shape(rows);
    std::vector<double> sums(static_cast<size_t>(shape.n_blocks * (kExperts + 1)));
    run_emulated(emulation, shape, [&](auto& ctx) {
      device::mutual_information_sums_body(ctx, rows, sums.data());
    });
    return std::vector<float>(sums.begin(), sums.end());
  });
}

TEST_CASE("cross_entropy: executions agree", "[device]") {
  constexpr int64_t kRows = 2, kVocabulary = 1031;  // the second row begins where no pack may
  const auto logits = numbers(kRows * kVocabulary, 6);
  const std::vector<int64_t> targets = {1030, 0};
  check_executions([&](Emulation emulation) {
    auto gradient = logits;
    std::vector<double> losses(kRows);
    const CrossEntropyRows<float> rows{.n_rows = kRows,
                                       .vocab_size = kVocabulary,
                                       .logits = gradient.data(),
                                       .targets = targets.data()};
    run_emulated(emulation, device::cross_entropy_shape(rows), [&](auto& ctx) {
      device::cross_entropy_body(ctx, rows, 0.5, losses.data());
    });
    append(gradient, std::vector<float>(losses.begin(), losses.end()));
    return gradient;
  });
}

TEST_CASE("expert_gemv: executions agree", "[device]") {
  constexpr int64_t kTokens = 2, kExperts = 3, kWidth = 8, kModel = 20;
  const auto x = numbers(kTokens * kModel, 7);
  const auto up = numbers(kExperts * kWidth * kModel, 8);
  const auto down = numbers(kModel * kExperts * kWidth, 9);
  const std::vector<float> weights = {0.5F, 0, 0, 0.25F, 0, 1};
  check_executions([&](Emulation emulation) {
    std::vector<float> hidden(kTokens * kExperts * kWidth), y(kTokens * kModel);
    const GemvHidden<float> first{.n_tokens = kTokens,
                                  .n_experts = kExperts,
                                  .width = kWidth,
                                  .d_in = kModel,
                                  .x = x.data(),
                                  .up = up.data(),
                                  .gate = nullptr,
                                  .up_bias = nullptr,
                                  .gate_bias = nullptr,
                                  .weights = weights.data(),
                                  .weighted = true,
                                  .hidden = hidden.data()};
    run_emulated(emulation, device::expert_gemv_hidden_shape(first), [&](auto& ctx) {
      device::expert_gemv_hidden_body<kMostGemvTokens>(ctx, Activation::kGelu, first);
    });
    const GemvSum<float> second{.n_tokens = kTokens,
                                .n_experts = kExperts,
                                .width = kWidth,
                                .d_out = kModel,
                                .hidden = hidden.data(),
                                .down = down.data(),
                                .bias = nullptr,
                                .weights = weights.data(),
                                .weighted = false,
                                .y = y.data()};
    run_emulated(emulation, device::expert_gemv_sum_shape(second), [&](auto& ctx) {
      device::expert_gemv_sum_body<kMostGemvTokens>(ctx, second);
    });
    append(hidden, y);
    return hidden;
  });
}

TEST_CASE("decode_attention: executions agree", "[device]") {
  const int64_t n_groups = GENERATE(3, 5);  // as many as warps at once, and more
  constexpr int64_t kKvHeads = 1, kHeadDim = 8, kCapacity = 200;
  const auto q = numbers(static_cast<size_t>(n_groups * kHeadDim), 10);
  const auto keys = numbers(kCapacity * kHeadDim, 11);
  const auto values = numbers(kCapacity * kHeadDim, 12);
  const std::vector<float> weights = {1, 0, 1, 1, 0};
  const std::vector<int64_t> positions = {150};  // two tiles
  check_executions([&](Emulation emulation) {
    std::vector<float> y(static_cast<size_t>(n_groups * kHeadDim));
    std::vector<float> partial(
        static_cast<size_t>(n_groups * decode_tiles(kCapacity) * (kHeadDim + 2)));
    const DecodeAttention<float> args{.batch = 1,
                                      .n_kv_heads = kKvHeads,
                                      .n_groups = n_groups,
                                      .capacity = kCapacity,
                                      .head_dim = kHeadDim,
                                      .by_expert = true,
                                      .q = q.data(),
                                      .keys = keys.data(),
                                      .values = values.data(),
                                      .cos = nullptr,
                                      .sin = nullptr,
                                      .positions = positions.data(),
                                      .weights = weights.data(),
                                      .partial = partial.data(),
                                      .y = y.data()};
    run_emulated(emulation, device::decode_tiles_shape(args), [&](auto& ctx) {
      device::decode_tiles_body(ctx, args);
    });
    run_emulated(emulation, device::decode_join_shape(args), [&](auto& ctx) {
      device::decode_join_body(ctx, args);
    });
    return y;
  });
}

TEST_CASE("launches of large arguments keep 64-bit sizes", "[device]") {
  constexpr int64_t kRows = int64_t{1} << 22;
  const RotaryRows<Bfloat16, float> rotary{.n_rows = kRows,
                                           .n_heads = 32,
                                           .half = 64,
                                           .n_table_rows = 1,
                                           .x = nullptr,
                                           .cos = nullptr,
                                           .sin = nullptr,
                                           .y = nullptr};
  CHECK(device::rotary_shape(rotary).n_blocks == kRows * 32 * 16 / device::kRotaryLanes);
  const DecodeAttention<Bfloat16> attention{.batch = 4096,
                                            .n_kv_heads = 128,
                                            .n_groups = 1,
                                            .capacity = int64_t{1} << 20,
                                            .head_dim = 128,
                                            .by_expert = false,
                                            .q = nullptr,
                                            .keys = nullptr,
                                            .values = nullptr,
                                            .cos = nullptr,
                                            .sin = nullptr,
                                            .positions = nullptr,
                                            .weights = nullptr,
                                            .partial = nullptr,
                                            .y = nullptr};
  CHECK(device::decode_tiles_shape(attention).n_blocks == int64_t{4096} * 128 * 8192);
  CHECK_THROWS_AS(emulated::check_launch(device::decode_tiles_shape(attention)),
                  std::invalid_argument);  // more blocks than a launch takes
}

}  // namespace dsmoe
