#include "csrc_kernels/attention/cached_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "common/thread_pool.h"
#include "csrc_kernels/attention/cached_attention_kernels.h"
#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

constexpr const char* kName = "cached_attention";
constexpr int64_t kSerialElements = 1 << 13;  // below, a region costs more than the work

void check_cache(const KvRows& cache) {
  const auto& keys = cache.keys;
  TORCH_CHECK(keys.dim() == 4 && keys.is_contiguous() && cache.values.is_contiguous() &&
                  keys.sizes() == cache.values.sizes() &&
                  keys.scalar_type() == cache.values.scalar_type() && cache.lengths != nullptr &&
                  keys.size(0) == static_cast<int64_t>(cache.lengths->size()),
              kName,
              ": expected keys and values [batch, n_kv_heads, capacity, head_dim], contiguous, and "
              "a length for each sequence, got ",
              keys.sizes());
}

void check_room(const KvRows& cache, int64_t seq) {
  const int64_t longest =
      cache.lengths->empty() ? 0 : *std::max_element(cache.lengths->begin(), cache.lengths->end());
  TORCH_CHECK(longest + seq <= cache.keys.size(2),
              kName,
              ": expected at most ",
              cache.keys.size(2),
              " tokens, got ",
              longest + seq);
}

void check_tables(const TurnTables& tables, const at::Tensor& keys) {
  if (!tables.cos.defined()) return;
  const auto wide = keys.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(tables.cos.dim() == 2 && tables.cos.size(0) > 0 &&
                  tables.cos.size(1) * 2 == keys.size(3) &&
                  tables.cos.sizes() == tables.sin.sizes() && tables.cos.is_contiguous() &&
                  tables.sin.is_contiguous() && tables.cos.scalar_type() == wide &&
                  tables.sin.scalar_type() == wide,
              kName,
              ": expected tables [n, ",
              keys.size(3) / 2,
              "] of ",
              wide);
}

template <typename T>
CacheRows<T> rows_of(const KvRows& cache) {
  return {.n_kv_heads = cache.keys.size(1),
          .capacity = cache.keys.size(2),
          .head_dim = cache.keys.size(3),
          .keys = pointer<T>(cache.keys),
          .values = pointer<T>(cache.values),
          .lengths = cache.lengths->data()};
}

template <typename W>
TurnRows<W> rows_of(const TurnTables& tables) {
  return {.n_table_rows = tables.cos.defined() ? tables.cos.size(0) : 1,
          .cos = pointer<const W>(tables.cos),
          .sin = pointer<const W>(tables.sin)};
}

void check_queries(const KvRows& cache, const QueryRows& queries) {
  const auto& q = queries.q;
  TORCH_CHECK(q.dim() == 3 && q.is_contiguous() && q.size(2) == cache.keys.size(3) &&
                  q.size(1) % cache.keys.size(1) == 0 &&
                  q.scalar_type() == cache.keys.scalar_type() && queries.seq > 0,
              kName,
              ": expected q [n_rows, a multiple of ",
              cache.keys.size(1),
              ", ",
              cache.keys.size(3),
              "] in the cache's type, contiguous, got ",
              q.sizes());
  const int64_t n_tokens = cache.keys.size(0) * queries.seq;
  const auto& tokens = queries.token_of_row;
  if (!tokens.defined()) {
    TORCH_CHECK(q.size(0) == n_tokens, kName, ": expected ", n_tokens, " rows, got ", q.size(0));
    return;
  }
  TORCH_CHECK(tokens.dim() == 1 && tokens.size(0) == q.size(0) &&
                  tokens.scalar_type() == at::kLong && tokens.is_contiguous(),
              kName,
              ": expected token_of_row [",
              q.size(0),
              "] of int64");
  const auto* numbers = tokens.const_data_ptr<int64_t>();
  TORCH_CHECK(std::all_of(numbers,
                          numbers + tokens.numel(),
                          [&](int64_t token) { return token >= 0 && token < n_tokens; }),
              kName,
              ": expected tokens below ",
              n_tokens);
}

}  // namespace

void append_to_cache(const KvRows& cache,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const TurnTables& tables) {
  check_cache(cache);
  check_tables(tables, cache.keys);
  const auto& keys = cache.keys;
  TORCH_CHECK(k.dim() == 4 && k.sizes() == v.sizes() && k.is_contiguous() && v.is_contiguous() &&
                  k.scalar_type() == keys.scalar_type() && v.scalar_type() == keys.scalar_type() &&
                  k.size(0) == keys.size(0) && k.size(2) == keys.size(1) &&
                  k.size(3) == keys.size(3),
              kName,
              ": expected k and v [",
              keys.size(0),
              ", seq, ",
              keys.size(1),
              ", ",
              keys.size(3),
              "] in the cache's type, contiguous, got ",
              k.sizes());
  check_room(cache, k.size(1));
  const int64_t seq = k.size(1);
  const int64_t n_tokens = k.size(0) * seq;
  dispatch_float_types(kName, keys.scalar_type(), [&]<typename T, typename W>() {
    const auto rows = rows_of<T>(cache);
    const auto turn = rows_of<W>(tables);
    const auto append = [&](int64_t token, int) {
      DSMOE_CALL_FOR_ISA(
          append_token, rows, turn, seq, token, pointer<const T>(k), pointer<const T>(v));
    };
    if (k.numel() > kSerialElements) return kernel_threads().run(n_tokens, append);
    for (int64_t token = 0; token < n_tokens; ++token) append(token, 0);
  });
}

at::Tensor cached_attention(const KvRows& cache, const QueryRows& queries) {
  check_cache(cache);
  check_tables(queries.tables, cache.keys);
  check_queries(cache, queries);
  check_room(cache, queries.seq);
  auto y = at::empty_like(queries.q);
  const int64_t n_kv_heads = cache.keys.size(1);
  const int64_t n_rows = queries.q.size(0);
  auto& threads = kernel_threads();
  dispatch_float_types(kName, y.scalar_type(), [&]<typename T, typename W>() {
    const auto rows = rows_of<T>(cache);
    const CachedQueries<T, W> kernel_queries{
        .n_heads = queries.q.size(1),
        .seq = queries.seq,
        .kv_major = queries.layout == HeadLayout::kKvMajor,
        .q = pointer<const T>(queries.q),
        .token_of_row = pointer<const int64_t>(queries.token_of_row),
        .turn = rows_of<W>(queries.tables),
        .y = pointer<T>(y)};
    const int64_t scratch_size = rows.capacity + 2 * rows.head_dim;
    const auto scratch = at::empty({threads.n_threads(), scratch_size},
                                   at::TensorOptions().dtype(c10::CppTypeToScalarType<W>::value));
    threads.run(n_rows * n_kv_heads, [&](int64_t item, int thread) {
      W* own = pointer<W>(scratch) + thread * scratch_size;
      DSMOE_CALL_FOR_ISA(
          attend_row, rows, kernel_queries, item / n_kv_heads, item % n_kv_heads, own);
    });
  });
  return y;
}

}  // namespace dsmoe
