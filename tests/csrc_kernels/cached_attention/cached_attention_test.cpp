#include "csrc_kernels/cached_attention/cached_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "common/thread_pool.h"
#include "csrc_kernels/random_tensors.h"
#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {
namespace {

constexpr int64_t kKvHeads = 2;
constexpr int64_t kHeads = 6;
constexpr int64_t kHeadDim = 10;
constexpr int64_t kCapacity = 40;

// Sequences of unlike lengths and rooms, and a pass over the next tokens of each; what lies past a
// sequence's end is NaN.
struct Sequences {
  std::vector<int64_t> lengths;
  TokenPlaces places;
  KvRows cache;

  Sequences(std::vector<int64_t> of_each,
            at::ScalarType type,
            RandomTensors& random,
            int64_t seq = 1)
      : lengths(std::move(of_each)) {
    cache.places = &places;
    for (size_t b = 0; b < lengths.size(); ++b) {
      const int64_t n = lengths[b];
      const auto nothing = at::full({kKvHeads, kCapacity - static_cast<int64_t>(b), kHeadDim},
                                    std::numeric_limits<double>::quiet_NaN(),
                                    at::TensorOptions().dtype(type));
      cache.keys.push_back(nothing.clone());
      cache.values.push_back(nothing);
      cache.keys[b].narrow(1, 0, n).copy_(random.normal({kKvHeads, n, kHeadDim}));
      cache.values[b].narrow(1, 0, n).copy_(random.normal({kKvHeads, n, kHeadDim}));
      add_tokens(static_cast<int64_t>(b), seq);
    }
  }
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;

  void add_tokens(int64_t sequence, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      places.sequence.push_back(sequence);
      places.position.push_back(lengths[static_cast<size_t>(sequence)] + i);
    }
  }
};

RotaryTables make_tables(int64_t n_rows, at::ScalarType type, RandomTensors& random) {
  const auto angles = random.normal({n_rows, kHeadDim / 2});
  const auto wide = type == at::kDouble ? at::kDouble : at::kFloat;
  return {angles.cos().to(wide), angles.sin().to(wide)};
}

double tolerance(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-5 : 2e-2;
}

const at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16};

}  // namespace

TEST_CASE("cached_attention: equals its reference over ragged sequences", "[kernels][attention]") {
  for (const auto type : kTypes) {
    for (const auto layout : {HeadLayout::kKvMajor, HeadLayout::kExpertMajor}) {
      for (const int64_t seq : {1, 3}) {
        INFO(type << ", " << seq << " tokens, layout " << static_cast<int>(layout));
        RandomTensors random(3);
        Sequences sequences({7, 0, 33}, type, random, seq);
        const auto tables = make_tables(3 * seq, type, random);
        const auto k = random.normal({3, seq, kKvHeads, kHeadDim}, type);
        append_to_cache(sequences.cache, k, random.normal(k.sizes(), type), tables);
        QueryRows queries{.q = random.normal({3 * seq, kHeads, kHeadDim}, type),
                          .token_of_row = {},
                          .layout = layout,
                          .tables = tables};
        CHECK(max_difference(cached_attention(sequences.cache, queries),
                             cached_attention_ref(sequences.cache, queries)) < tolerance(type));
        // Rows in another order, one twice, one left out.
        queries.token_of_row = at::tensor({2, 0, 2}, at::kLong);
        queries.q = queries.q.narrow(0, 0, 3).contiguous();
        CHECK(max_difference(cached_attention(sequences.cache, queries),
                             cached_attention_ref(sequences.cache, queries)) < tolerance(type));
      }
    }
  }
}

TEST_CASE("append_to_cache: stores rotated keys at each sequence's own end",
          "[kernels][attention]") {
  for (const auto type : kTypes) {
    RandomTensors random(8);
    Sequences sequences({4, 9}, type, random, 3);
    const std::vector before{sequences.cache.keys[0].clone(), sequences.cache.keys[1].clone()};
    const auto k = random.normal({2, 3, kKvHeads, kHeadDim}, type);
    const auto v = random.normal({2, 3, kKvHeads, kHeadDim}, type);
    const auto tables = make_tables(6, type, random);
    append_to_cache(sequences.cache, k, v, tables);
    const auto rotated =
        rotary(k.view({6, kKvHeads, kHeadDim}), tables.cos, tables.sin).view(k.sizes());
    for (const size_t b : {0, 1}) {
      const int64_t end = sequences.lengths[b];
      const auto row = static_cast<int64_t>(b);
      const auto& keys = sequences.cache.keys[b];
      CHECK(max_difference(keys.narrow(1, end, 3), rotated[row].transpose(0, 1)) < tolerance(type));
      CHECK(at::equal(sequences.cache.values[b].narrow(1, end, 3), v[row].transpose(0, 1)));
      CHECK(at::equal(keys.narrow(1, 0, end), before[b].narrow(1, 0, end)));
      CHECK(keys.narrow(1, end + 3, keys.size(1) - end - 3).isnan().all().item<bool>());
    }
  }
}

TEST_CASE("cached_attention: a worked value", "[kernels][attention]") {
  // Equal scores: the mean of the values.
  const TokenPlaces places{{0}, {1}};
  KvRows cache{{at::full({1, 4, 2}, 0.0F)}, {at::full({1, 4, 2}, 0.0F)}, &places};
  cache.values[0][0][0] = at::tensor({1.0F, 2.0F});
  append_to_cache(
      cache, at::full({1, 1, 1, 2}, 0.0F), at::tensor({3.0F, 6.0F}).view({1, 1, 1, 2}), {});
  const auto y = cached_attention(cache, {.q = at::full({1, 1, 2}, 1.0F), .token_of_row = {}});
  CHECK(max_difference(y.flatten(), at::tensor({2.0F, 4.0F})) < 1e-6);
}

TEST_CASE("cached_attention: a row's bits depend on neither the batch nor the threads",
          "[kernels][attention]") {
  const int threads = kernel_threads().n_threads();
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    RandomTensors random(12);
    Sequences all({5, 30, 17}, type, random);
    const auto k = random.normal({3, 1, kKvHeads, kHeadDim}, type);
    append_to_cache(all.cache, k, k, {});
    const auto q = random.normal({3, kHeads, kHeadDim}, type);
    set_kernel_threads(1);
    const auto whole = cached_attention(all.cache, {.q = q, .token_of_row = {}});
    for (size_t b = 0; b < 3; ++b) {
      const auto row = static_cast<int64_t>(b);
      const TokenPlaces place{{0}, {all.lengths[b]}};
      const KvRows own{{all.cache.keys[b]}, {all.cache.values[b]}, &place};
      CHECK(at::equal(cached_attention(own, {.q = q.narrow(0, row, 1), .token_of_row = {}})[0],
                      whole[row]));
    }
    set_kernel_threads(3);
    CHECK(at::equal(cached_attention(all.cache, {.q = q, .token_of_row = {}}), whole));
  }
  set_kernel_threads(threads);
}

TEST_CASE("cached_attention: a pass may have unlike numbers of tokens of its sequences",
          "[kernels][attention]") {
  for (const auto type : kTypes) {
    RandomTensors random(21);
    Sequences sequences({11, 2, 0}, type, random, 0);
    sequences.add_tokens(1, 5);
    sequences.add_tokens(0, 1);
    const auto tables = make_tables(6, type, random);
    const auto k = random.normal({6, kKvHeads, kHeadDim}, type);
    append_to_cache(sequences.cache, k, k, tables);
    CHECK(at::equal(sequences.cache.values[1].narrow(1, 2, 5), k.narrow(0, 0, 5).transpose(0, 1)));
    CHECK(at::equal(sequences.cache.values[0].narrow(1, 11, 1), k.narrow(0, 5, 1).transpose(0, 1)));
    CHECK(sequences.cache.values[2].isnan().all().item<bool>());
    const QueryRows queries{
        .q = random.normal({6, kHeads, kHeadDim}, type), .token_of_row = {}, .tables = tables};
    CHECK(max_difference(cached_attention(sequences.cache, queries),
                         cached_attention_ref(sequences.cache, queries)) < tolerance(type));
  }
}

TEST_CASE("cached_attention: wrong shapes and a full cache throw", "[kernels][attention]") {
  RandomTensors random(1);
  Sequences sequences({kCapacity}, at::kFloat, random);
  const auto k = random.normal({1, 1, kKvHeads, kHeadDim}, at::kFloat);
  CHECK_THROWS_WITH(append_to_cache(sequences.cache, k, k, {}), Catch::Contains("at most 40"));
  Sequences room({3}, at::kFloat, random);
  CHECK_THROWS_AS(append_to_cache(room.cache, k.to(at::kDouble), k.to(at::kDouble), {}),
                  c10::Error);
  const auto q = random.normal({1, kHeads, kHeadDim}, at::kFloat);
  CHECK_THROWS_AS(
      cached_attention(room.cache, {.q = q.narrow(1, 0, 5).contiguous(), .token_of_row = {}}),
      c10::Error);
  CHECK_THROWS_AS(
      cached_attention(room.cache, {.q = q, .token_of_row = at::tensor({1}, at::kLong)}),
      c10::Error);
  CHECK_THROWS_AS(
      cached_attention(room.cache,
                       {.q = random.normal({2, kHeads, kHeadDim}, at::kFloat), .token_of_row = {}}),
      c10::Error);
}

}  // namespace dsmoe
