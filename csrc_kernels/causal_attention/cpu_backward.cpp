#include "csrc_kernels/causal_attention/blocks.h"

namespace dsmoe {
namespace {

template <typename B, typename W>
struct Scratch {
  B* k;                  // [S, D]
  B* k_t;                // [D, S]
  B* v;                  // [S, D]
  W* grad_k;             // [S, D]
  W* grad_v;             // [S, D]
  B* rows;               // [Q, D]
  B* q_t;                // right factor [D, Q]
  B* q;                  // right factor [Q, D]
  B* grad_y_t;           // right factor [D, Q]
  B* grad_y;             // right factor [Q, D]
  W* scores;             // [C, Q]
  W* grad_probs;         // [C, Q]
  B* probs;              // [C, Q]
  B* grad_scores;        // [C, Q]
  B* grad_scores_right;  // right factor [C, Q]
  W* grad_q_t;           // [D, Q]
  W* grad_q;             // [Q, D]
  W* log_sum;            // [Q]
  W* dot;                // [Q], grad_y * y summed over D

  Scratch(const Blocks& size, Carver& carver)
      : k(carver.take<B>(size.seq * size.head_dim)),
        k_t(carver.take<B>(size.seq * size.head_dim)),
        v(carver.take<B>(size.seq * size.head_dim)),
        grad_k(carver.take<W>(size.seq * size.head_dim)),
        grad_v(carver.take<W>(size.seq * size.head_dim)),
        rows(carver.take<B>(size.n_queries * size.head_dim)),
        q_t(carver.take<B>(size.n_queries * size.head_dim)),
        q(carver.take<B>(size.n_queries * size.head_dim)),
        grad_y_t(carver.take<B>(size.n_queries * size.head_dim)),
        grad_y(carver.take<B>(size.n_queries * size.head_dim)),
        scores(carver.take<W>(kKeys * size.n_queries)),
        grad_probs(carver.take<W>(kKeys * size.n_queries)),
        probs(carver.take<B>(kKeys * size.n_queries)),
        grad_scores(carver.take<B>(kKeys * size.n_queries)),
        grad_scores_right(kPairs<B> ? carver.take<B>(kKeys * size.n_queries) : grad_scores),
        grad_q_t(carver.take<W>(size.head_dim * size.n_queries)),
        grad_q(carver.take<W>(size.head_dim * size.n_queries)),
        log_sum(carver.take<W>(size.n_queries)),
        dot(carver.take<W>(size.n_queries)) {}
};

// Computes probs and grad_scores (of the scaled scores), as left and as right factor, from n rows
// of scores and grad_probs.
template <typename B, typename W>
void differentiate_softmax(int64_t n, int64_t n_queries, W scale, const Scratch<B, W>& at) {
  const W* log_sum = at.log_sum;
  const W* dot = at.dot;
  for (int64_t key = 0; key < n; key += 2) {
    const int64_t row = key * n_queries;
    const W* s = at.scores + row;
    const W* g = at.grad_probs + row;
    B* p = at.probs + row;
    B* d = at.grad_scores + row;
    [[maybe_unused]] B* d_right = at.grad_scores_right + row;
#pragma omp simd
    for (int64_t i = 0; i < n_queries; ++i) {
      const W p0 = probability(s[i] * scale - log_sum[i]);
      const W p1 = probability(s[i + n_queries] * scale - log_sum[i]);
      const W d0 = p0 * (g[i] - dot[i]);
      const W d1 = p1 * (g[i + n_queries] - dot[i]);
      store_rounded(p[i], p0);
      store_rounded(p[i + n_queries], p1);
      store_rounded(d[i], d0);
      store_rounded(d[i + n_queries], d1);
      if constexpr (kPairs<B>) join_two_rows(d_right, n_queries, i, d0, d1);
    }
  }
}

template <typename T, typename B, typename W>
class Backward {
 public:
  Backward(const AttentionShape& shape,
           const AttentionBackward<T, W>& tensors,
           BlockProduct<B, W> product,
           void* scratch)
      : shape_(shape),
        tensors_(tensors),
        product_(product),
        size_(shape),
        at_(carve(size_, scratch)) {}

  void run() {
    load_keys();
    for (int64_t head = 0; head < shape_.n_query_heads; ++head) {
      for (int64_t query = 0; query < shape_.seq; query += size_.n_queries) {
        load_queries(head, query);
        differentiate(query);
        store_grad_q(head, query);
      }
    }
    // Scores are the products of q and k times `scale`.
    const W scale = score_scale<W>(shape_.head_dim);
    store(shape_.seq, scale, at_.grad_k, tensors_.grad_k.from(0, 0));
    store(shape_.seq, W(1), at_.grad_v, tensors_.grad_v.from(0, 0));
  }

 private:
  static Scratch<B, W> carve(const Blocks& size, void* scratch) {
    Carver carver(scratch);
    return {size, carver};
  }

  int64_t n_rows(int64_t query) const { return std::min(size_.n_queries, shape_.seq - query); }

  void load_keys() {
    const Padded keys{shape_.seq, size_.seq, shape_.head_dim, size_.head_dim};
    copy_rows(keys, tensors_.k.from(0, 0), at_.k);
    transpose(size_.seq, size_.head_dim, at_.k, size_.head_dim, at_.k_t, size_.seq);
    copy_rows(keys, tensors_.v.from(0, 0), at_.v);
    std::fill_n(at_.grad_k, size_.seq * size_.head_dim, W(0));
    std::fill_n(at_.grad_v, size_.seq * size_.head_dim, W(0));
  }

  void load_queries(int64_t head, int64_t query) {
    const auto [q, s, d] = size_;
    const auto load_both = [&, d = d, q = q](const HeadRows<const T>& x, B* transposed, B* right) {
      const auto rows =
          dense_rows({n_rows(query), q, shape_.head_dim, d}, x.from(head, query), at_.rows);
      pack_transposed(q, d, rows, transposed);
      pack_rows(q, d, rows, right);
    };
    load_both(tensors_.q, at_.q_t, at_.q);
    load_both(tensors_.grad_y, at_.grad_y_t, at_.grad_y);
    // Padding rows have gradient zero, so that their probabilities, which are finite, add nothing.
    std::fill_n(at_.dot, q, W(0));
    std::fill_n(at_.log_sum, q, W(0));
    std::copy_n(tensors_.log_sums + head * shape_.seq + query, n_rows(query), at_.log_sum);
    const auto y = tensors_.y.from(head, query);
    const auto grad_y = tensors_.grad_y.from(head, query);
    for (int64_t i = 0; i < n_rows(query); ++i) {
      at_.dot[i] = dot_rows<W>(shape_.head_dim, y[i], grad_y[i]);
    }
  }

  void differentiate(int64_t query) {
    const auto [q, s, d] = size_;
    const W scale = kLog2E<W> * score_scale<W>(shape_.head_dim);
    for (int64_t key = 0; key < query + q; key += kKeys) {
      const int64_t n = std::min(kKeys, query + q - key);
      product_(n, q, d, d, q, q, false, at_.k + key * d, at_.q_t, at_.scores);
      product_(n, q, d, d, q, q, false, at_.v + key * d, at_.grad_y_t, at_.grad_probs);
      hide_future_keys(query, key, n, q, at_.scores);
      differentiate_softmax(n, q, scale, at_);
      product_(n, d, q, q, d, d, true, at_.probs, at_.grad_y, at_.grad_v + key * d);
      product_(n, d, q, q, d, d, true, at_.grad_scores, at_.q, at_.grad_k + key * d);
      product_(d, q, n, s, q, q, key > 0, at_.k_t + key, at_.grad_scores_right, at_.grad_q_t);
    }
  }

  void store_grad_q(int64_t head, int64_t query) {
    const auto [q, s, d] = size_;
    transpose(d, q, at_.grad_q_t, q, at_.grad_q, d);
    const W scale = score_scale<W>(shape_.head_dim);
    store(n_rows(query), scale, at_.grad_q, tensors_.grad_q.from(head, query));
  }

  void store(int64_t n, W factor, const W* from, RowSpan<T> to) {
    store_rows(n, shape_.head_dim, factor, RowSpan<const W>{from, size_.head_dim}, to);
  }

  const AttentionShape& shape_;
  const AttentionBackward<T, W>& tensors_;
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
         const AttentionBackward<T, W>& tensors,
         BlockProduct<B, W> product,
         void* scratch) {
  Backward<T, B, W>(shape, tensors, product, scratch).run();
}

}  // namespace

template <>
CausalBackwardKernels<Bfloat16, Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<Bfloat16, float>, run};
}
template <>
CausalBackwardKernels<Bfloat16, float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<float, float>, run};
}
template <>
CausalBackwardKernels<float, float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<float, float>, run};
}
template <>
CausalBackwardKernels<double, double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {scratch_bytes<double, double>, run};
}

}  // namespace dsmoe
