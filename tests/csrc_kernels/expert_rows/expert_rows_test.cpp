#include "csrc_kernels/expert_rows/expert_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "common/thread_pool.h"
#include "csrc_kernels/random_tensors.h"
#include "support/poisoned_memory.h"

namespace dsmoe {
namespace {

constexpr int64_t kModel = 37;
constexpr int64_t kExpert = 45;

// A layer of experts, and which token goes where.
struct Case {
  std::string name;
  int64_t n_tokens;
  std::vector<std::vector<int64_t>> tokens_of_expert;
};

std::vector<int64_t> first_tokens(int64_t n) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(i);
  return tokens;
}

const std::vector<Case> kCases = {
    {"two of three each", 3, {{0, 1}, {0, 2}, {1, 2}}},
    {"empty first, middle and last expert", 2, {{}, {0}, {}, {0, 1}, {}}},
    {"one token", 1, {{0}, {}, {0}}},
    {"all tokens on one expert", 40, {{}, first_tokens(40), {}}},
    {"every token on every expert", 14, {first_tokens(14), first_tokens(14)}},
    {"no pair at all", 4, {{}, {}}},
    {"no token", 0, {{}, {}}},
    {"tokens without an expert", 5, {{1}, {1, 3}}},
};

Dispatch make_pairs(const Case& shape, RandomTensors& random, bool weighted) {
  std::vector<int64_t> tokens;
  Dispatch pairs{.n_tokens = shape.n_tokens, .offsets = {0}};
  for (const auto& of_expert : shape.tokens_of_expert) {
    tokens.insert(tokens.end(), of_expert.begin(), of_expert.end());
    pairs.offsets.push_back(static_cast<int64_t>(tokens.size()));
  }
  pairs.token_of_row = at::tensor(tokens, at::kLong);
  if (weighted) pairs.weight_of_row = random.normal({pairs.offsets.back()}, at::kFloat);
  return pairs;
}

struct Layer {
  ExpertInput input;
  PackedLinear down;
};

Layer make_layer(int64_t n_experts, PackedFormat format, Activation activation, bool bias) {
  RandomTensors random(23);
  const auto side = [&] {
    const auto weight = random.normal({n_experts * kExpert, kModel}) * 0.2;
    return PackedLinear{pack_matrix(weight, format, n_experts),
                        bias ? random.normal({n_experts * kExpert}, at::kFloat) : at::Tensor()};
  };
  Layer layer;
  layer.input.up = side();
  layer.input.gate = side();
  layer.input.activation = activation;
  const auto down = random.normal({kModel, n_experts * kExpert}) * 0.2;
  layer.down = {pack_matrix(down, format, n_experts, ExpertAxis::kColumns),
                bias ? random.normal({kModel}, at::kFloat) : at::Tensor()};
  return layer;
}

at::Tensor run(const at::Tensor& x, const Dispatch& pairs, const Layer& layer) {
  return expert_sum(expert_hidden(x, pairs, layer.input), pairs, layer.down);
}

// The pairs of one token as its own batch.
Dispatch pairs_of_token(const Dispatch& pairs, int64_t token) {
  Dispatch own{.n_tokens = 1, .offsets = {0}};
  const auto* tokens = pairs.token_of_row.const_data_ptr<int64_t>();
  std::vector<int64_t> rows;
  for (size_t e = 0; e + 1 < pairs.offsets.size(); ++e) {
    for (int64_t row = pairs.offsets[e]; row < pairs.offsets[e + 1]; ++row) {
      if (tokens[row] == token) rows.push_back(row);
    }
    own.offsets.push_back(static_cast<int64_t>(rows.size()));
  }
  own.token_of_row = at::zeros({static_cast<int64_t>(rows.size())}, at::kLong);
  own.weight_of_row = pairs.weight_of_row.index_select(0, at::tensor(rows, at::kLong));
  return own;
}

// int8 rounds 1 in 254 of the largest number of a block, of inputs and weights alike.
double tolerance(PackedFormat format, const at::Tensor& expected) {
  const double largest = expected.numel() == 0 ? 0.0 : expected.abs().max().item<double>();
  if (format != PackedFormat::kInt8 || largest == 0.0) return 1e-5 * std::max(1.0, largest);
  return 0.03 * largest;
}

const PackedFormat kFormats[] = {PackedFormat::kFloat32,
                                 PackedFormat::kBfloat16,
                                 PackedFormat::kInt8};

}  // namespace

TEST_CASE("expert_hidden and expert_sum: equal their float64 references", "[kernels][packed]") {
  const PoisonedMemory poisoned;
  for (const auto format : kFormats) {
    for (const auto activation : {Activation::kIdentity,
                                  Activation::kGelu,
                                  Activation::kGeluTanh,
                                  Activation::kSwiglu,
                                  Activation::kSilu,
                                  Activation::kQuickGelu,
                                  Activation::kReluSquared}) {
      for (const auto& shape : kCases) {
        INFO(shape.name << ", format " << static_cast<int>(format) << ", activation "
                        << static_cast<int>(activation));
        RandomTensors random(29);
        const bool bias = activation == Activation::kGelu || activation == Activation::kSwiglu;
        const auto n_experts = static_cast<int64_t>(shape.tokens_of_expert.size());
        const auto layer = make_layer(n_experts, format, activation, bias);
        const auto pairs = make_pairs(shape, random, activation != Activation::kIdentity);
        const auto x = random.normal({shape.n_tokens, kModel}, at::kBFloat16).to(at::kFloat);
        const auto hidden = expert_hidden(x, pairs, layer.input);
        const auto expected = expert_hidden_ref(x, pairs, layer.input);
        CHECK(max_difference(hidden, expected) <= tolerance(format, expected));
        // From numbers that bfloat16 holds, so that only the sums differ.
        const auto rounded = hidden.to(at::kBFloat16).to(at::kFloat);
        const auto y = expert_sum(rounded, pairs, layer.down);
        const auto sum = expert_sum_ref(rounded, pairs, layer.down);
        CHECK(max_difference(y, sum) <= tolerance(format, sum));
      }
    }
  }
}

TEST_CASE("expert_hidden and expert_sum: take bfloat16 rows", "[kernels][packed]") {
  RandomTensors random(2);
  const auto layer = make_layer(3, PackedFormat::kBfloat16, Activation::kSwiglu, true);
  const auto pairs = make_pairs(kCases[0], random, true);
  const auto x = random.normal({3, kModel}, at::kBFloat16);
  const auto wide = run(x.to(at::kFloat), pairs, layer);
  const auto narrow = run(x, pairs, layer);
  CHECK(narrow.scalar_type() == at::kBFloat16);
  CHECK(at::equal(narrow, wide.to(at::kBFloat16)));
}

TEST_CASE("expert_hidden and expert_sum: without a list, row i is token i", "[kernels][packed]") {
  RandomTensors random(6);
  const auto layer = make_layer(1, PackedFormat::kFloat32, Activation::kGelu, true);
  const auto x = random.normal({14, kModel}, at::kFloat);
  auto pairs = make_pairs({"", 14, {first_tokens(14)}}, random, false);
  const auto listed = run(x, pairs, layer);
  pairs.token_of_row = at::Tensor();
  CHECK(at::equal(run(x, pairs, layer), listed));
  CHECK(max_difference(expert_hidden_ref(x, pairs, layer.input),
                       expert_hidden(x, pairs, layer.input)) < 1e-5);
  CHECK_THROWS_AS(expert_hidden(x.narrow(0, 0, 9), pairs, layer.input), c10::Error);
}

TEST_CASE("expert_sum: a token's bits depend on neither the other tokens nor the threads",
          "[kernels][packed]") {
  const int threads = kernel_threads().n_threads();
  for (const auto format : kFormats) {
    for (const auto& shape : kCases) {
      INFO(shape.name << ", format " << static_cast<int>(format));
      RandomTensors random(17);
      const auto n_experts = static_cast<int64_t>(shape.tokens_of_expert.size());
      const auto layer = make_layer(n_experts, format, Activation::kGeluTanh, true);
      const auto pairs = make_pairs(shape, random, true);
      const auto x = random.normal({shape.n_tokens, kModel}, at::kFloat);
      set_kernel_threads(1);
      const auto whole = run(x, pairs, layer);
      for (int64_t token = 0; token < shape.n_tokens; ++token) {
        const auto own = pairs_of_token(pairs, token);
        CHECK(at::equal(run(x.narrow(0, token, 1), own, layer), whole.narrow(0, token, 1)));
      }
      set_kernel_threads(3);
      CHECK(at::equal(run(x, pairs, layer), whole));
    }
  }
  set_kernel_threads(threads);
}

TEST_CASE("expert_sum: pairs of weight zero change no bit", "[kernels][packed]") {
  for (const auto format : kFormats) {
    RandomTensors random(19);
    const auto layer = make_layer(3, format, Activation::kSwiglu, true);
    const auto sparse = make_pairs({"", 2, {{0, 1}, {1}, {0}}}, random, true);
    auto dense = make_pairs({"", 2, {{0, 1}, {0, 1}, {0, 1}}}, random, true);
    dense.weight_of_row.zero_();
    const int64_t rows_of_sparse[] = {0, 1, 3, 4};
    for (int64_t i = 0; i < 4; ++i)
      dense.weight_of_row[rows_of_sparse[i]] = sparse.weight_of_row[i];
    const auto x = random.normal({2, kModel}, at::kFloat);
    CHECK(at::equal(run(x, dense, layer), run(x, sparse, layer)));
  }
}

TEST_CASE("expert_hidden and expert_sum: wrong shapes throw", "[kernels][packed]") {
  RandomTensors random(4);
  const auto layer = make_layer(3, PackedFormat::kFloat32, Activation::kSwiglu, true);
  const auto pairs = make_pairs(kCases[0], random, true);
  const auto x = random.normal({3, kModel}, at::kFloat);
  CHECK_THROWS_AS(expert_hidden(x.narrow(0, 0, 2), pairs, layer.input), c10::Error);
  CHECK_THROWS_AS(expert_hidden(x.narrow(1, 0, 5).contiguous(), pairs, layer.input), c10::Error);
  auto wrong = pairs;
  wrong.offsets.back() += 1;
  CHECK_THROWS_AS(expert_hidden(x, wrong, layer.input), c10::Error);
  wrong = pairs;
  wrong.weight_of_row = wrong.weight_of_row.narrow(0, 0, 2);
  CHECK_THROWS_AS(expert_hidden(x, wrong, layer.input), c10::Error);
  auto input = layer.input;
  input.gate = make_layer(3, PackedFormat::kBfloat16, Activation::kSwiglu, true).input.gate;
  CHECK_THROWS_AS(expert_hidden(x, pairs, input), c10::Error);
  const auto hidden = expert_hidden(x, pairs, layer.input);
  CHECK_THROWS_AS(expert_sum(x, pairs, layer.down), c10::Error);
  auto fewer = pairs;
  fewer.n_tokens = 2;
  CHECK_THROWS_AS(expert_sum(hidden, fewer, layer.down), c10::Error);
}

}  // namespace dsmoe
