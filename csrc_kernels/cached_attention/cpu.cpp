#include "csrc_kernels/cached_attention/kernels.h"

#include "csrc_kernels/common/simd.h"

namespace dsmoe {
namespace {

// y = x with the pairs (i, i + half) rotated by the angles of a token.
template <typename T, typename W, typename Y>
void rotate_head(const RotaryTableRows<W>& tables,
                 int64_t token,
                 int64_t head_dim,
                 const T* x,
                 Y* y) {
  if (tables.cos == nullptr) {
    for (int64_t i = 0; i < head_dim; ++i) store(y[i], load(x[i]));
    return;
  }
  const int64_t half = head_dim / 2;
  const W* cos = tables.cos + token % tables.n_table_rows * half;
  const W* sin = tables.sin + token % tables.n_table_rows * half;
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const W a = load(x[i]);
    const W b = load(x[half + i]);
    store(y[i], a * cos[i] - b * sin[i]);
    store(y[half + i], b * cos[i] + a * sin[i]);
  }
}

// scores [n_keys] = keys [n_keys, head_dim] . query; returns the largest score.
template <typename T, typename W>
W score(const T* keys, const W* query, int64_t n_keys, int64_t head_dim, W* scores) {
  W greatest = 0;
  for (int64_t j = 0; j < n_keys; ++j) {
    const T* key = keys + j * head_dim;
    W sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < head_dim; ++i) sum += query[i] * load(key[i]);
    scores[j] = sum;
    greatest = j == 0 || sum > greatest ? sum : greatest;
  }
  return greatest;
}

// sums [head_dim] of the values weighted by exp(score - greatest); returns the sum of the weights.
template <typename T, typename W>
W weigh(const T* values, W greatest, int64_t n_keys, int64_t head_dim, W* scores, W* sums) {
  W total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < n_keys; ++j) {
    scores[j] = exp_of(scores[j] - greatest);
    total += scores[j];
  }
  for (int64_t i = 0; i < head_dim; ++i) sums[i] = 0;
  for (int64_t j = 0; j < n_keys; ++j) {
    const T* value = values + j * head_dim;
    const W weight = scores[j];
#pragma omp simd
    for (int64_t i = 0; i < head_dim; ++i) sums[i] += weight * load(value[i]);
  }
  return total;
}

template <typename T, typename W>
void append_token(const CacheRows<T>& cache,
                  const RotaryTableRows<W>& tables,
                  int64_t token,
                  const T* k,
                  const T* v) {
  const int64_t sequence = cache.sequences[token];
  const int64_t dim = cache.head_dim;
  for (int64_t head = 0; head < cache.n_kv_heads; ++head) {
    const int64_t from = (token * cache.n_kv_heads + head) * dim;
    const int64_t to = cache.head_begin(token, head) + cache.positions[token] * dim;
    rotate_head(tables, token, dim, k + from, cache.keys[sequence] + to);
    for (int64_t i = 0; i < dim; ++i) cache.values[sequence][to + i] = v[from + i];
  }
}

template <typename T, typename W>
void attend_row(const CacheRows<T>& cache,
                const CachedQueries<T, W>& queries,
                int64_t row,
                int64_t kv_head,
                W* scratch) {
  const int64_t token = queries.token_of_row == nullptr ? row : queries.token_of_row[row];
  const int64_t n_keys = cache.positions[token] + 1;
  const int64_t dim = cache.head_dim;
  const int64_t group = queries.n_heads / cache.n_kv_heads;
  const int64_t begin = cache.head_begin(token, kv_head);
  const T* keys = cache.keys[cache.sequences[token]] + begin;
  const T* values = cache.values[cache.sequences[token]] + begin;
  const W scale = W(1) / static_cast<W>(__builtin_sqrt(static_cast<double>(dim)));
  W* query = scratch;
  W* sums = scratch + dim;
  W* scores = scratch + 2 * dim;
  for (int64_t i = 0; i < group; ++i) {
    const int64_t head = queries.kv_major ? kv_head * group + i : i * cache.n_kv_heads + kv_head;
    const int64_t at = (row * queries.n_heads + head) * dim;
    rotate_head(queries.tables, token, dim, queries.q + at, query);
    for (int64_t d = 0; d < dim; ++d) query[d] *= scale;
    const W greatest = score(keys, query, n_keys, dim, scores);
    const W total = weigh(values, greatest, n_keys, dim, scores, sums);
    for (int64_t d = 0; d < dim; ++d) store(queries.y[at + d], sums[d] / total);
  }
}

}  // namespace

template <>
CachedAttentionKernels<Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {append_token, attend_row};
}
template <>
CachedAttentionKernels<float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {append_token, attend_row};
}
template <>
CachedAttentionKernels<double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {append_token, attend_row};
}

}  // namespace dsmoe
