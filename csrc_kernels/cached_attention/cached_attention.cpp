#include "csrc_kernels/cached_attention/cached_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <vector>

#include "common/thread_pool.h"
#include "csrc_kernels/cached_attention/kernels.h"
#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

constexpr const char* kName = "cached_attention";
constexpr int64_t kSerialElements = 1 << 13;  // below, a parallel region costs more than the work

// Throws unless all sequences have the same shapes, except for their capacity, and the same type.
void check_cache(const KvRows& cache) {
  TORCH_CHECK(!cache.keys.empty() && cache.keys.size() == cache.values.size() &&
                  cache.places != nullptr &&
                  cache.places->sequence.size() == cache.places->position.size(),
              kName,
              ": expected keys and values of at least one sequence, and places of tokens");
  const auto& first = cache.keys.front();
  for (size_t i = 0; i < cache.keys.size(); ++i) {
    const auto& keys = cache.keys[i];
    const auto& values = cache.values[i];
    TORCH_CHECK(keys.dim() == 3 && keys.is_contiguous() && values.is_contiguous() &&
                    keys.sizes() == values.sizes() && keys.size(0) == first.size(0) &&
                    keys.size(2) == first.size(2) && keys.scalar_type() == first.scalar_type() &&
                    values.scalar_type() == first.scalar_type(),
                kName,
                ": expected keys and values [n_kv_heads, capacity, head_dim], contiguous, got ",
                keys.sizes());
  }
}

void check_places(const KvRows& cache) {
  const auto n_sequences = static_cast<int64_t>(cache.keys.size());
  for (size_t t = 0; t < cache.places->sequence.size(); ++t) {
    const int64_t sequence = cache.places->sequence[t];
    const int64_t position = cache.places->position[t];
    TORCH_CHECK(sequence >= 0 && sequence < n_sequences && position >= 0,
                kName,
                ": expected a place in ",
                n_sequences,
                " sequences");
    const int64_t capacity = cache.keys[static_cast<size_t>(sequence)].size(1);
    TORCH_CHECK(
        position < capacity, kName, ": expected at most ", capacity, " tokens, got ", position + 1);
  }
}

void check_tables(const RotaryTables& tables, const at::Tensor& keys) {
  if (!tables.cos.defined()) return;
  const auto wide = keys.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(tables.cos.dim() == 2 && tables.cos.size(0) > 0 &&
                  tables.cos.size(1) * 2 == keys.size(2) &&
                  tables.cos.sizes() == tables.sin.sizes() && tables.cos.is_contiguous() &&
                  tables.sin.is_contiguous() && tables.cos.scalar_type() == wide &&
                  tables.sin.scalar_type() == wide,
              kName,
              ": expected tables [n, ",
              keys.size(2) / 2,
              "] of ",
              wide);
}

// Owns the arrays of pointers that CacheRows points to.
template <typename T>
class CachePointers {
 public:
  explicit CachePointers(const KvRows& cache) : places_(*cache.places) {
    for (size_t i = 0; i < cache.keys.size(); ++i) {
      keys_.push_back(pointer<T>(cache.keys[i]));
      values_.push_back(pointer<T>(cache.values[i]));
      capacities_.push_back(cache.keys[i].size(1));
    }
    n_kv_heads_ = cache.keys.front().size(0);
    head_dim_ = cache.keys.front().size(2);
  }

  CacheRows<T> rows() const {
    return {.n_kv_heads = n_kv_heads_,
            .head_dim = head_dim_,
            .keys = keys_.data(),
            .values = values_.data(),
            .capacities = capacities_.data(),
            .sequences = places_.sequence.data(),
            .positions = places_.position.data()};
  }
  int64_t longest() const { return *std::max_element(capacities_.begin(), capacities_.end()); }

 private:
  const TokenPlaces& places_;
  int64_t n_kv_heads_;
  int64_t head_dim_;
  std::vector<T*> keys_;
  std::vector<T*> values_;
  std::vector<int64_t> capacities_;
};

template <typename W>
RotaryTableRows<W> rows_of(const RotaryTables& tables) {
  return {.n_table_rows = tables.cos.defined() ? tables.cos.size(0) : 1,
          .cos = pointer<const W>(tables.cos),
          .sin = pointer<const W>(tables.sin)};
}

void check_queries(const KvRows& cache, const QueryRows& queries) {
  const auto& q = queries.q;
  const auto& keys = cache.keys.front();
  TORCH_CHECK(q.dim() == 3 && q.is_contiguous() && q.size(2) == keys.size(2) &&
                  q.size(1) % keys.size(0) == 0 && q.scalar_type() == keys.scalar_type(),
              kName,
              ": expected q [n_rows, a multiple of ",
              keys.size(0),
              ", ",
              keys.size(2),
              "] in the cache's type, contiguous, got ",
              q.sizes());
  const auto n_tokens = static_cast<int64_t>(cache.places->sequence.size());
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
                     const RotaryTables& tables) {
  check_cache(cache);
  check_places(cache);
  const auto& keys = cache.keys.front();
  check_tables(tables, keys);
  const auto n_tokens = static_cast<int64_t>(cache.places->sequence.size());
  TORCH_CHECK(k.dim() >= 3 && k.sizes() == v.sizes() && k.is_contiguous() && v.is_contiguous() &&
                  k.scalar_type() == keys.scalar_type() && v.scalar_type() == keys.scalar_type() &&
                  k.size(-2) == keys.size(0) && k.size(-1) == keys.size(2) &&
                  k.numel() == n_tokens * keys.size(0) * keys.size(2),
              kName,
              ": expected k and v of ",
              n_tokens,
              " tokens, [..., ",
              keys.size(0),
              ", ",
              keys.size(2),
              "] in the cache's type, contiguous, got ",
              k.sizes());
  dispatch_float_types(kName, keys.scalar_type(), [&]<typename T, typename W>() {
    const CachePointers<T> pointers(cache);
    const auto rows = pointers.rows();
    const auto table_rows = rows_of<W>(tables);
    const auto& kernels = cpu_kernels<CachedAttentionKernels<T, W>>();
    const auto append = [&](int64_t token, int) {
      kernels.append_token(rows, table_rows, token, pointer<const T>(k), pointer<const T>(v));
    };
    if (k.numel() > kSerialElements) return kernel_threads().run(n_tokens, append);
    for (int64_t token = 0; token < n_tokens; ++token) append(token, 0);
  });
}

at::Tensor cached_attention(const KvRows& cache, const QueryRows& queries) {
  check_cache(cache);
  check_places(cache);
  check_tables(queries.tables, cache.keys.front());
  check_queries(cache, queries);
  auto y = at::empty_like(queries.q);
  const int64_t n_rows = queries.q.size(0);
  auto& threads = kernel_threads();
  dispatch_float_types(kName, y.scalar_type(), [&]<typename T, typename W>() {
    const CachePointers<T> pointers(cache);
    const auto rows = pointers.rows();
    const int64_t n_kv_heads = rows.n_kv_heads;
    const CachedQueries<T, W> kernel_queries{
        .n_heads = queries.q.size(1),
        .kv_major = queries.layout == HeadLayout::kKvMajor,
        .q = pointer<const T>(queries.q),
        .token_of_row = pointer<const int64_t>(queries.token_of_row),
        .tables = rows_of<W>(queries.tables),
        .y = pointer<T>(y)};
    const int64_t scratch_size = pointers.longest() + 2 * rows.head_dim;
    const auto scratch = at::empty({threads.n_threads(), scratch_size},
                                   at::TensorOptions().dtype(c10::CppTypeToScalarType<W>::value));
    const auto& kernels = cpu_kernels<CachedAttentionKernels<T, W>>();
    threads.run(n_rows * n_kv_heads, [&](int64_t item, int thread) {
      W* own = pointer<W>(scratch) + thread * scratch_size;
      kernels.attend_row(rows, kernel_queries, item / n_kv_heads, item % n_kv_heads, own);
    });
  });
  return y;
}

}  // namespace dsmoe
