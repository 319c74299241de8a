// Own attention and LibTorch's in alternation: run with the tag [.bench].
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <ctime>
#include <functional>
#include <vector>

#include "csrc_kernels/causal_attention/causal_attention.h"
#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

struct BenchSize {
  int64_t batch;
  int64_t seq;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
};

struct Times {
  double forward_ms;
  double both_ms;
};

using Attention =
    std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

// CPU time of the whole process: other work on the machine does not count.
double milliseconds(const std::function<void()>& work) {
  const std::clock_t start = std::clock();
  work();
  return 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

Times time_once(const Attention& attention,
                const std::vector<at::Tensor>& qkv,
                const at::Tensor& grad) {
  at::Tensor y;
  for (const auto& x : qkv) x.mutable_grad().reset();
  const double forward = milliseconds([&] { y = attention(qkv[0], qkv[1], qkv[2]); });
  const double backward = milliseconds([&] { y.backward(grad); });
  return {forward, forward + backward};
}

Times fastest(const std::vector<Times>& times) {
  Times best = times.front();
  for (const auto& t : times) {
    best.forward_ms = std::min(best.forward_ms, t.forward_ms);
    best.both_ms = std::min(best.both_ms, t.both_ms);
  }
  return best;
}

at::Tensor library_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::scaled_dot_product_attention(q.transpose(1, 2),
                                          k.transpose(1, 2),
                                          v.transpose(1, 2),
                                          {},
                                          0.0,
                                          true,
                                          std::nullopt,
                                          q.size(2) != k.size(2))
      .transpose(1, 2);
}

void compare(const BenchSize& size, at::ScalarType type) {
  RandomTensors random(1);
  const auto leaf = [&](int64_t heads) {
    return random.normal({size.batch, size.seq, heads, size.head_dim}, type).requires_grad_(true);
  };
  const std::vector<at::Tensor> qkv{
      leaf(size.n_heads), leaf(size.n_kv_heads), leaf(size.n_kv_heads)};
  const auto grad = random.normal(qkv[0].sizes(), type);
  const Attention own = [](const auto& q, const auto& k, const auto& v) {
    return causal_attention(q, k, v, HeadLayout::kKvMajor);
  };
  time_once(own, qkv, grad);
  time_once(library_attention, qkv, grad);
  std::vector<Times> ours;
  std::vector<Times> library;
  for (int i = 0; i < 7; ++i) {
    ours.push_back(time_once(own, qkv, grad));
    library.push_back(time_once(library_attention, qkv, grad));
  }
  const auto a = fastest(ours);
  const auto b = fastest(library);
  // Two products forward, five backward, over half the square of positions.
  const double product = 1e-6 * size.batch * size.n_heads * size.seq * size.seq * size.head_dim;
  std::printf(
      "%3ld %5ld %3ld/%-2ld %3ld %-8s | %7.2f ms %5.0f GFLOP/s %7.2f ms %5.0f GFLOP/s | %7.2f ms "
      "%7.2f ms | %4.1fx %4.1fx\n",
      size.batch,
      size.seq,
      size.n_heads,
      size.n_kv_heads,
      size.head_dim,
      c10::toString(type),
      a.forward_ms,
      2 * product / a.forward_ms,
      a.both_ms,
      7 * product / a.both_ms,
      b.forward_ms,
      b.both_ms,
      b.forward_ms / a.forward_ms,
      b.both_ms / a.both_ms);
  std::fflush(stdout);
}

}  // namespace

TEST_CASE("causal_attention: speed beside LibTorch's", "[.bench]") {
  std::printf("%d threads; causal GFLOP/s; fastest of 7\n", at::get_num_threads());
  std::printf("batch seq heads dim type | own forward, forward + backward | LibTorch | ratios\n");
  for (const auto type : {at::kBFloat16, at::kFloat}) {
    for (const auto& size : {BenchSize{4, 512, 8, 8, 64},
                             BenchSize{16, 128, 8, 2, 24},
                             BenchSize{16, 128, 8, 2, 64},
                             BenchSize{2, 1024, 8, 8, 64},
                             BenchSize{1, 2048, 8, 8, 64},
                             BenchSize{1, 2048, 8, 2, 128}}) {
      compare(size, type);
    }
  }
}

}  // namespace dsmoe
