#include "csrc_kernels/causal_attention/blocks.h"

namespace dsmoe {
namespace {

template <typename B, typename W>
struct Scratch {
  B* k;       // [S, D]
  B* v_t;     // [D, S]
  B* rows;    // [Q, D]
  B* q_t;     // right factor [D, Q]
  W* scores;  // [C, Q]
  B* probs;   // right factor [C, Q]
  W* y_t;     // [D, Q]
  W* y;       // [Q, D]
  W* max;     // [Q], largest score so far
  W* shift;   // [Q], the same as exponent of two
  W* sum;     // [Q], of 2^(exponent - shift)
  W* factor;  // [Q]

  Scratch(const Blocks& size, Carver& carver)
      : k(carver.take<B>(size.seq * size.head_dim)),
        v_t(carver.take<B>(size.seq * size.head_dim)),
        rows(carver.take<B>(size.n_queries * size.head_dim)),
        q_t(carver.take<B>(size.n_queries * size.head_dim)),
        scores(carver.take<W>(kKeys * size.n_queries)),
        probs(carver.take<B>(kKeys * size.n_queries)),
        y_t(carver.take<W>(size.head_dim * size.n_queries)),
        y(carver.take<W>(size.head_dim * size.n_queries)),
        max(carver.take<W>(size.n_queries)),
        shift(carver.take<W>(size.n_queries)),
        sum(carver.take<W>(size.n_queries)),
        factor(carver.take<W>(size.n_queries)) {}
};

template <typename W>
inline W larger(W a, W b) {
  return a < b ? b : a;
}

// Raises max to the maximum of n more rows of scores; rescales the sums from the old one.
template <typename B, typename W>
void raise_max(int64_t n, int64_t n_queries, W scale, const Scratch<B, W>& at) {
  W* max = at.max;
  W* shift = at.shift;
  for (int64_t key = 0; key < n; key += 4) {
    const W* s = at.scores + key * n_queries;
#pragma omp simd
    for (int64_t i = 0; i < n_queries; ++i) {
      const W a = larger(s[i], s[i + n_queries]);
      const W b = larger(s[i + 2 * n_queries], s[i + 3 * n_queries]);
      max[i] = larger(max[i], larger(a, b));
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < n_queries; ++i) {
    const W shrink = probability(shift[i] - max[i] * scale);
    shift[i] = max[i] * scale;
    at.factor[i] = shrink;
    at.sum[i] *= shrink;
  }
}

// probs = 2^(scale * scores - shift); adds them to sum.
template <typename B, typename W>
void exponentiate(int64_t n, int64_t n_queries, W scale, const Scratch<B, W>& at) {
  const W* shift = at.shift;
  W* sum = at.sum;
  for (int64_t key = 0; key < n; key += 2) {
    const W* s = at.scores + key * n_queries;
    B* p = at.probs + key * n_queries;
#pragma omp simd
    for (int64_t i = 0; i < n_queries; ++i) {
      const W even = probability(s[i] * scale - shift[i]);
      const W odd = probability(s[i + n_queries] * scale - shift[i]);
      sum[i] += even + odd;
      join_two_rows(p, n_queries, i, even, odd);
    }
  }
}

template <typename T, typename B, typename W>
class Forward {
 public:
  Forward(const AttentionShape& shape,
          const AttentionForward<T, W>& tensors,
          BlockProduct<B, W> product,
          void* scratch)
      : shape_(shape),
        tensors_(tensors),
        product_(product),
        size_(shape),
        at_(carve(size_, scratch)) {}

  void run() {
    const Padded keys{shape_.seq, size_.seq, shape_.head_dim, size_.head_dim};
    copy_rows(keys, tensors_.v.from(0, 0), at_.k);
    transpose(size_.seq, size_.head_dim, at_.k, size_.head_dim, at_.v_t, size_.seq);
    copy_rows(keys, tensors_.k.from(0, 0), at_.k);
    for (int64_t head = 0; head < shape_.n_query_heads; ++head) {
      for (int64_t query = shape_.first_query; query < shape_.seq; query += size_.n_queries) {
        load_queries(head, query);
        attend(query);
        store_outputs(head, query);
      }
    }
  }

 private:
  static Scratch<B, W> carve(const Blocks& size, void* scratch) {
    Carver carver(scratch);
    return {size, carver};
  }

  int64_t n_rows(int64_t query) const { return std::min(size_.n_queries, shape_.seq - query); }

  void load_queries(int64_t head, int64_t query) {
    const auto rows = dense_rows({n_rows(query), size_.n_queries, shape_.head_dim, size_.head_dim},
                                 tensors_.q.from(head, query - shape_.first_query),
                                 at_.rows);
    pack_transposed(size_.n_queries, size_.head_dim, rows, at_.q_t);
  }

  // Takes keys in chunks, each relative to the largest score so far: scratch does not grow with
  // seq.
  void attend(int64_t query) {
    const auto [q, s, d] = size_;
    const W scale = kLog2E<W> * score_scale<W>(shape_.head_dim);
    std::fill_n(at_.max, q, std::numeric_limits<W>::lowest());
    std::fill_n(at_.shift, q, std::numeric_limits<W>::lowest());
    std::fill_n(at_.sum, q, W(0));
    for (int64_t key = 0; key < query + q; key += kKeys) {
      const int64_t n = std::min(kKeys, query + q - key);
      product_(n, q, d, d, q, q, false, at_.k + key * d, at_.q_t, at_.scores);
      hide_future_keys(query, key, n, q, at_.scores);
      raise_max(n, q, scale, at_);
      exponentiate(n, q, scale, at_);
      if (key > 0) scale_columns(d, q, at_.factor, at_.y_t);
      product_(d, q, n, s, q, q, key > 0, at_.v_t + key, at_.probs, at_.y_t);
    }
  }

  void store_outputs(int64_t head, int64_t query) {
    const auto [q, s, d] = size_;
    for (int64_t i = 0; i < q; ++i) at_.factor[i] = W(1) / at_.sum[i];
    scale_columns(d, q, at_.factor, at_.y_t);
    transpose(d, q, at_.y_t, q, at_.y, d);
    store_rows(n_rows(query),
               shape_.head_dim,
               W(1),
               RowSpan<const W>{at_.y, d},
               tensors_.y.from(head, query - shape_.first_query));
    W* log_sums = tensors_.log_sums + head * shape_.n_queries() + query - shape_.first_query;
    for (int64_t i = 0; i < n_rows(query); ++i) {
      log_sums[i] = at_.shift[i] + std::log2(at_.sum[i]);
    }
  }

  const AttentionShape& shape_;
  const AttentionForward<T, W>& tensors_;
  BlockProduct<B, W> product_;
  Blocks size_;
  Scratch<B, W> at_;
};

template <typename B, typename W>
int64_t scratch_bytes(const AttentionShape& shape) {
  Carver carver(nullptr);
  Scratch<B, W>(Blocks(shape), carver);
  return carver.n_bytes();
}

template <typename T, typename B, typename W>
void run(const AttentionShape& shape,
         const AttentionForward<T, W>& tensors,
         BlockProduct<B, W> product,
         void* scratch) {
  Forward<T, B, W>(shape, tensors, product, scratch).run();
}

}  // namespace

template <>
CausalForwardKernels<Bfloat16, Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<Bfloat16, float>, run};
}
template <>
CausalForwardKernels<Bfloat16, float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<float, float>, run};
}
template <>
CausalForwardKernels<float, float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<float, float>, run};
}
template <>
CausalForwardKernels<double, double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<double, double>, run};
}

}  // namespace dsmoe
