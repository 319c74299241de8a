// The ops of inference on another device than the CPU, with its kernels.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <array>
#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "csrc_kernels/decode_attention/decode_attention.h"
#include "csrc_kernels/decode_attention/kernels.h"
#include "csrc_kernels/dispatch/dispatch.h"
#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "csrc_kernels/random_tensors.h"
#include "csrc_kernels/rotary/rotary.h"
#include "csrc_kernels/token_choice/token_choice.h"
#include "support/test_device.h"

namespace dsmoe {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

double tolerance_of(at::ScalarType type) { return type == at::kFloat ? 2e-5 : 2e-2; }

void check_close(const at::Tensor& got, const at::Tensor& expected) {
  const auto reference = expected.to(at::kDouble);
  const double scale = 1.0 + reference.abs().max().item<double>();
  CHECK(max_difference(got.cpu().to(at::kDouble), reference) <=
        tolerance_of(got.scalar_type()) * scale);
}

// Each token selects every third expert, but for the last token, which selects none.
at::Tensor some_weights(RandomTensors& random, int64_t n_tokens, int64_t n_experts) {
  auto weights = random.normal({n_tokens, n_experts}, at::kFloat).abs() + 0.1;
  auto* w = weights.data_ptr<float>();
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t e = 0; e < n_experts; ++e) {
      const bool last = n_tokens > 1 && t == n_tokens - 1;
      if ((t + e) % 3 != 0 || last) w[t * n_experts + e] = 0;
    }
  }
  return weights;
}

at::Tensor on(at::Device device, const at::Tensor& x) { return x.defined() ? x.to(device) : x; }
WideLinear on(at::Device device, const WideLinear& x) {
  return {on(device, x.weight), on(device, x.bias)};
}

}  // namespace

TEST_CASE("device: experts of few tokens", "[device_ops]") {
  const auto device = test_device();
  REQUIRE(device_kernels<ExpertGemvKernels<Bfloat16>>().hidden != nullptr);
  RandomTensors random(11);
  struct Sizes {
    int64_t n_tokens, n_experts, width, d_model;
  };
  // One token and several; one expert; widths with and without whole packs.
  for (const auto& s :
       {Sizes{1, 1, 3, 5}, Sizes{1, 6, 16, 64}, Sizes{3, 4, 5, 24}, Sizes{8, 9, 32, 264}}) {
    for (const auto type : kTypes) {
      for (const auto activation :
           {Activation::kIdentity, Activation::kGelu, Activation::kSwiglu}) {
        const bool weighted = activation != Activation::kIdentity;
        const bool biased = s.n_experts == 4;
        CAPTURE(s.n_tokens, s.n_experts, s.width, s.d_model, type, static_cast<int>(activation));
        const auto linear = [&](int64_t rows, int64_t columns) {
          return WideLinear{random.normal({rows, columns}, type) * 0.3,
                            biased ? random.normal({rows}, at::kFloat) : at::Tensor()};
        };
        const int64_t d_wide = s.n_experts * s.width;
        const auto x = random.normal({s.n_tokens, s.d_model}, type);
        const auto up = linear(d_wide, s.d_model);
        const auto gate =
            activation == Activation::kSwiglu ? linear(d_wide, s.d_model) : WideLinear{};
        const auto down = linear(s.d_model, d_wide);
        const auto weights = some_weights(random, s.n_tokens, s.n_experts);
        const auto hidden_ref = expert_gemv_hidden_ref(x, activation, up, gate, weights, weighted);
        const auto hidden = expert_gemv_hidden(on(device, x),
                                               activation,
                                               on(device, up),
                                               on(device, gate),
                                               on(device, weights),
                                               weighted);
        check_close(hidden, hidden_ref);
        check_close(expert_gemv_hidden(on(device, x),
                                       activation,
                                       on(device, up),
                                       on(device, gate),
                                       /*expert_weights=*/{},
                                       weighted),
                    expert_gemv_hidden_ref(x, activation, up, gate, {}, weighted));
        CHECK(hidden.cpu()
                  .view({s.n_tokens, s.n_experts, s.width})
                  .masked_select(weights.eq(0).unsqueeze(2))
                  .eq(0)
                  .all()
                  .item<bool>());
        const auto y = expert_gemv_sum(
            on(device, hidden_ref), on(device, down), on(device, weights), !weighted);
        check_close(y, expert_gemv_sum_ref(hidden_ref, down, weights, !weighted));
      }
    }
  }
}

TEST_CASE("device: experts that no token selects are not read", "[device_ops]") {
  const auto device = test_device();
  RandomTensors random(12);
  auto up = random.normal({4 * 8, 16}, at::kFloat);
  auto down = random.normal({16, 4 * 8}, at::kFloat);
  up.narrow(0, 8, 8).fill_(std::numeric_limits<float>::quiet_NaN());  // expert 1
  down.narrow(1, 8, 8).fill_(std::numeric_limits<float>::quiet_NaN());
  const auto weights = at::tensor({0.5F, 0.0F, 0.25F, 0.0F}).view({1, 4}).to(device);
  const auto x = random.normal({1, 16}, at::kFloat).to(device);
  const auto hidden =
      expert_gemv_hidden(x, Activation::kGelu, {on(device, up), {}}, {}, weights, true);
  const auto y = expert_gemv_sum(hidden, {on(device, down), {}}, weights, false);
  CHECK_FALSE(y.isnan().any().item<bool>());
}

TEST_CASE("device: the choice of experts is the CPU's", "[device_ops]") {
  const auto device = test_device();
  REQUIRE(device_kernels<TokenChoiceKernels>().choose != nullptr);
  RandomTensors random(14);
  std::vector<RoutingRule> rules(6);
  rules[1] = {.selection = Selection::kTopK, .k = 2, .renormalise = true};
  rules[2] = {
      .selection = Selection::kThreshold, .epsilon = 0.3, .max_experts = 1, .count_scale = true};
  rules[3] = {
      .selection = Selection::kThreshold, .epsilon = 0.9, .zero_active = ZeroActive::kArgmax};
  rules[4] = {.selection = Selection::kThreshold, .epsilon = 0.9, .zero_active = ZeroActive::kAll};
  rules[5] = {.selection = Selection::kThresholdTopK, .epsilon = 0.4};
  for (const auto& [n_tokens, n_experts] :
       {std::array<int64_t, 2>{0, 4}, {1, 2}, {7, 5}, {130, 40}}) {
    for (size_t i = 0; i < rules.size(); ++i) {
      CAPTURE(n_tokens, n_experts, i);
      auto probs = random.normal({n_tokens, n_experts}, at::kFloat).sigmoid();
      if (n_tokens > 5) probs[2].fill_(0.5);  // a tie of all
      if (n_tokens > 5) probs[3].fill_(0.1);
      if (n_tokens > 5) probs[4].zero_();
      if (n_tokens > 5) probs[5][1] = std::numeric_limits<float>::quiet_NaN();
      const at::NoGradGuard no_grad;
      const auto expected = choose_experts(probs, rules[i], /*packed=*/true);
      const auto got = choose_experts(on(device, probs), rules[i]);
      CHECK(got.selected.cpu().equal(expected.selected));
      CHECK(at::allclose(
          got.expert_weights.cpu(), expected.expert_weights, 0, 1e-6, /*equal_nan=*/true));
    }
  }
}

TEST_CASE("device: rows by expert, and back", "[device_ops]") {
  const auto device = test_device();
  REQUIRE(device_kernels<DispatchKernels>().list != nullptr);
  RandomTensors random(15);
  // Nobody selected, all selected, some experts without tokens; lists that are full, not and too
  // short.
  for (const auto& [n_tokens, n_experts, d_model] :
       {std::array<int64_t, 3>{1, 1, 8}, {9, 4, 24}, {70, 6, 7}}) {
    for (const double share : {0.0, 0.4, 1.0}) {
      auto selected = random.normal({n_tokens, n_experts})
                          .lt(share == 1.0   ? 100
                              : share == 0.0 ? -100
                                             : 0.2);
      if (n_experts > 2) selected.select(1, 1).fill_(false);
      const auto n_rows = selected.sum().item<int64_t>();
      for (const int64_t max_rows : {n_rows, n_rows + 3, n_rows / 2}) {
        CAPTURE(n_tokens, n_experts, share, max_rows);
        const auto expected = list_rows_ref(selected, max_rows);
        const auto rows = list_rows(on(device, selected), max_rows);
        CHECK(rows.row_of_pair.cpu().equal(expected.row_of_pair));
        CHECK(rows.token_of_row.cpu().equal(expected.token_of_row));
        CHECK(rows.expert_of_row.cpu().equal(expected.expert_of_row));
        CHECK(rows.ends.cpu().equal(expected.ends));
        if (max_rows == 0) continue;
        for (const auto type : kTypes) {
          const auto x = random.normal({n_tokens, d_model}, type);
          auto y = random.normal({max_rows, d_model}, type);
          const auto weights = random.normal({n_tokens, n_experts}, at::kFloat);
          const auto run = [&](at::Device where, const Dispatch& lists) {
            const auto leaf = [&](const at::Tensor& t) {
              return t.detach().clone().to(where).requires_grad_(true);
            };
            const auto leaves = std::array{leaf(x), leaf(y), leaf(weights)};
            const auto gathered = dispatch_rows(leaves[0], lists);
            const auto combined = combine_rows(leaves[1], lists);
            const auto of_rows = gather_weights(leaves[2], lists);
            ((gathered * gathered).sum() + (combined * combined).sum() +
             (of_rows * of_rows).sum().to(type))
                .backward();
            std::vector<at::Tensor> all = {gathered, combined, of_rows};
            for (const auto& one : leaves) all.push_back(one.grad());
            return all;
          };
          const auto got = run(device, rows);
          const auto reference = run(at::kCPU, expected);
          for (size_t i = 0; i < got.size(); ++i)
            check_close(got[i].detach(), reference[i].detach());
        }
      }
    }
  }
}

TEST_CASE("device: decode attention over a cache", "[device_ops]") {
  const auto device = test_device();
  REQUIRE(device_kernels<DecodeAttentionKernels<Bfloat16>>().attend != nullptr);
  RandomTensors random(13);
  struct Sizes {
    int64_t batch, n_kv_heads, n_groups, head_dim, capacity;
  };
  // A first token; several tiles; head sizes with and without whole packs; more groups than fit.
  for (const auto& s : {Sizes{1, 1, 1, 8, 4},
                        Sizes{3, 2, 5, 64, 300},
                        Sizes{2, 1, 3, 10, 130},
                        Sizes{1, 2, 70, 128, 257}}) {
    for (const auto type : kTypes) {
      for (const auto layout : {HeadLayout::kKvMajor, HeadLayout::kExpertMajor}) {
        CAPTURE(s.batch, s.n_kv_heads, s.n_groups, s.head_dim, s.capacity, type);
        const auto rows = [&] {
          return random.normal({s.batch, s.n_kv_heads, s.capacity, s.head_dim}, type);
        };
        auto positions = at::empty({s.batch}, at::kLong);
        for (int64_t b = 0; b < s.batch; ++b) {
          positions.data_ptr<int64_t>()[b] = (s.capacity - 1) * (b + 1) / s.batch;
        }
        positions.data_ptr<int64_t>()[0] = s.batch == 1 ? s.capacity - 1 : 0;
        const DecodeCache cache{on(device, rows()), on(device, rows()), on(device, positions)};
        const auto angles = random.normal({s.batch, s.head_dim / 2}, at::kFloat);
        const RotaryTables tables{on(device, angles.cos()), on(device, angles.sin())};
        const auto k = random.normal({s.batch, s.n_kv_heads, s.head_dim}, type);
        const auto v = random.normal({s.batch, s.n_kv_heads, s.head_dim}, type);
        append_token(cache, on(device, k), on(device, v), tables);
        const DecodeCache on_cpu{cache.keys.cpu(), cache.values.cpu(), positions};
        for (int64_t b = 0; b < s.batch; ++b) {
          const int64_t at = positions[b].item<int64_t>();
          CHECK(max_difference(on_cpu.values[b].select(1, at), v[b]) == 0);
          const auto rotated = rotary_ref(k[b].unsqueeze(0).to(at::kFloat),
                                          angles[b].unsqueeze(0).cos(),
                                          angles[b].unsqueeze(0).sin());
          CHECK(max_difference(on_cpu.keys[b].select(1, at).to(at::kFloat), rotated[0]) <=
                2 * tolerance_of(type));
        }
        const auto q = random.normal({s.batch, s.n_kv_heads * s.n_groups, s.head_dim}, type);
        const bool by_expert = layout == HeadLayout::kExpertMajor;
        const auto weights =
            by_expert && s.n_groups > 1 ? some_weights(random, s.batch, s.n_groups) : at::Tensor();
        const auto y = decode_attention(cache, on(device, q), layout, tables, on(device, weights));
        const auto expected =
            decode_attention_ref(on_cpu, q, layout, {tables.cos.cpu(), tables.sin.cpu()}, weights);
        check_close(y, expected);
      }
    }
  }
}

}  // namespace dsmoe
