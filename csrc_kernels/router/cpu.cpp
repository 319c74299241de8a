// E n_experts, K width of the features. Rows go four at a time, so that a weight is read once for
// four of them.
#include "csrc_kernels/router/kernels.h"

#include "csrc_kernels/common/softmax_tile.h"

namespace dsmoe {
namespace {

constexpr int64_t kRowsAtOnce = 4;
constexpr int64_t kLanes = 16;

template <typename W>
class Buffer {
 public:
  explicit Buffer(int64_t n) : data_(new W[static_cast<uint64_t>(n)]()) {}
  ~Buffer() { delete[] data_; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  W* data() { return data_; }

 private:
  W* data_;
};

template <typename T, typename W>
void fill_features(const RouterTable<T, W>& table, int64_t row, W* features) {
  const int64_t n = table.width;
  if (!table.gated) {
    const T* x = table.x + row * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) features[i] = load(x[i]);
    return;
  }
  const T* gate = table.x + row * 2 * n;
  const T* up = gate + n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const W g = load(gate[i]);
    features[i] = g * sigmoid(g) * load(up[i]);
  }
}

// sums [kRowsAtOnce, kLanes] = features [kRowsAtOnce, K] * columns [K, stride], first kLanes of
// them
template <typename W>
void multiply(const W* features, const W* columns, int64_t n, int64_t stride, W* sums) {
  W a[kLanes] = {}, b[kLanes] = {}, c[kLanes] = {}, d[kLanes] = {};
  for (int64_t k = 0; k < n; ++k) {
    const W* weights = columns + k * stride;
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      a[i] += features[k] * weights[i];
      b[i] += features[n + k] * weights[i];
      c[i] += features[2 * n + k] * weights[i];
      d[i] += features[3 * n + k] * weights[i];
    }
  }
  for (int64_t i = 0; i < kLanes; ++i) {
    sums[i] = a[i];
    sums[kLanes + i] = b[i];
    sums[2 * kLanes + i] = c[i];
    sums[3 * kLanes + i] = d[i];
  }
}

// columns [K, stride]: weight transposed, padded with zeros to whole lanes
template <typename T, typename W>
void forward_rows(const RouterTable<T, W>& table,
                  int64_t begin,
                  int64_t n_rows,
                  const W* columns,
                  int64_t stride,
                  W* features) {
  for (int64_t r = 0; r < n_rows; ++r) {
    fill_features(table, begin + r, features + r * table.width);
  }
  W sums[kRowsAtOnce * kLanes];
  for (int64_t first = 0; first < table.n_experts; first += kLanes) {
    multiply(features, columns + first, table.width, stride, sums);
    const int64_t n = min_of(kLanes, table.n_experts - first);
    for (int64_t r = 0; r < n_rows; ++r) {
      W* logits = table.logits + (begin + r) * table.n_experts + first;
      for (int64_t i = 0; i < n; ++i) logits[i] = sums[r * kLanes + i];
    }
  }
}

// tile [E, kTileRows]
template <typename T, typename W>
void fill_probs(const RouterTable<T, W>& table, int64_t begin, int64_t n_rows, W* tile) {
  const int64_t n = table.n_experts;
  if (table.sigmoid) {
#pragma omp simd
    for (int64_t i = begin * n; i < (begin + n_rows) * n; ++i) {
      table.probs[i] = sigmoid(table.logits[i]);
    }
    return;
  }
  load_tile(table.logits + begin * n, n_rows, n, tile);
  softmax_tile<W>(n, tile, nullptr);
  store_tile(tile, n_rows, n, table.probs + begin * n);
}

// The gradient of the logits of one row, that of their probabilities included.
template <typename T, typename W>
void logit_gradient(const RouterTable<T, W>& table,
                    const RouterGradients<T, W>& gradients,
                    int64_t row,
                    W* grad) {
  const int64_t n = table.n_experts;
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = gradients.grad_logits == nullptr ? W(0) : gradients.grad_logits[row * n + i];
  }
  if (gradients.grad_probs == nullptr) return;
  const W* probs = table.probs + row * n;
  const W* grad_probs = gradients.grad_probs + row * n;
  if (table.sigmoid) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) grad[i] += grad_probs[i] * probs[i] * (W(1) - probs[i]);
    return;
  }
  W mean = 0;
#pragma omp simd reduction(+ : mean)
  for (int64_t i = 0; i < n; ++i) mean += probs[i] * grad_probs[i];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) grad[i] += probs[i] * (grad_probs[i] - mean);
}

template <typename T, typename W>
void store_feature_gradient(const RouterTable<T, W>& table,
                            int64_t row,
                            const W* grad_features,
                            T* grad_x) {
  const int64_t n = table.width;
  if (!table.gated) {
    T* grad = grad_x + row * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(grad[i], grad_features[i]);
    return;
  }
  const T* gate = table.x + row * 2 * n;
  const T* up = gate + n;
  T* grad_gate = grad_x + row * 2 * n;
  T* grad_up = grad_gate + n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const W g = load(gate[i]);
    const W s = sigmoid(g);
    store(grad_gate[i], grad_features[i] * load(up[i]) * s * (W(1) + g * (W(1) - s)));
    store(grad_up[i], grad_features[i] * g * s);
  }
}

// Rows begin .. begin + n_rows, at most kRowsAtOnce; scratch: features and their gradients
// [kRowsAtOnce, K] each, zero beyond n_rows, then gradients of the logits [kRowsAtOnce, E].
template <typename T, typename W>
void backward_rows(const RouterTable<T, W>& table,
                   const RouterGradients<T, W>& gradients,
                   int64_t begin,
                   int64_t n_rows,
                   W* scratch,
                   W* weight_sum) {
  const int64_t n = table.width;
  const int64_t n_experts = table.n_experts;
  W* features = scratch;
  W* grads = scratch + kRowsAtOnce * n;
  W* logits = grads + kRowsAtOnce * n;
  for (int64_t i = 0; i < kRowsAtOnce * n; ++i) grads[i] = 0;
  for (int64_t i = 0; i < kRowsAtOnce * n_experts; ++i) logits[i] = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    fill_features(table, begin + r, features + r * n);
    logit_gradient(table, gradients, begin + r, logits + r * n_experts);
  }
  for (int64_t e = 0; e < n_experts; ++e) {
    const W* weight = table.weight + e * n;
    W* sum = weight_sum + e * n;
    const W a = logits[e], b = logits[n_experts + e];
    const W c = logits[2 * n_experts + e], d = logits[3 * n_experts + e];
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) {
      sum[k] +=
          a * features[k] + b * features[n + k] + c * features[2 * n + k] + d * features[3 * n + k];
      grads[k] += a * weight[k];
      grads[n + k] += b * weight[k];
      grads[2 * n + k] += c * weight[k];
      grads[3 * n + k] += d * weight[k];
    }
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    store_feature_gradient(table, begin + r, grads + r * n, gradients.grad_x);
  }
}

template <typename T, typename W>
void router_forward(const RouterTable<T, W>& table) {
  const int64_t n = table.width;
  const int64_t stride = (table.n_experts + kLanes - 1) / kLanes * kLanes;
  Buffer<W> columns(n * stride);
  for (int64_t e = 0; e < table.n_experts; ++e) {
    for (int64_t k = 0; k < n; ++k) columns.data()[k * stride + e] = table.weight[e * n + k];
  }
#pragma omp parallel if (table.n_rows * n > 1 << 14)
  {
    Buffer<W> features(kRowsAtOnce * n);
    Buffer<W> tile(table.n_experts * kTileRows);
#pragma omp for
    for (int64_t begin = 0; begin < table.n_rows; begin += kTileRows) {
      const int64_t end = min_of(begin + kTileRows, table.n_rows);
      for (int64_t row = begin; row < end; row += kRowsAtOnce) {
        const int64_t n_rows = min_of(kRowsAtOnce, end - row);
        forward_rows(table, row, n_rows, columns.data(), stride, features.data());
      }
      fill_probs(table, begin, end - begin, tile.data());
    }
  }
}

template <typename T, typename W>
void router_backward(const RouterTable<T, W>& table, const RouterGradients<T, W>& gradients) {
  const int64_t n_chunks = router_chunks(table.n_rows);
  const int64_t n_weights = table.n_experts * table.width;
#pragma omp parallel for if (table.n_rows * table.width > 1 << 14)
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    W* weight_sum = gradients.partial_weight + chunk * n_weights;
    for (int64_t i = 0; i < n_weights; ++i) weight_sum[i] = 0;
    Buffer<W> scratch(kRowsAtOnce * (2 * table.width + table.n_experts));
    const int64_t end = table.n_rows * (chunk + 1) / n_chunks;
    for (int64_t row = table.n_rows * chunk / n_chunks; row < end; row += kRowsAtOnce) {
      const int64_t n_rows = min_of(kRowsAtOnce, end - row);
      backward_rows(table, gradients, row, n_rows, scratch.data(), weight_sum);
    }
  }
}

}  // namespace

template <>
RouterKernels<Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {router_forward, router_backward};
}
template <>
RouterKernels<float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {router_forward, router_backward};
}
template <>
RouterKernels<double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {router_forward, router_backward};
}

}  // namespace dsmoe
