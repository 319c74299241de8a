#include "report/gpu_roofline.h"

#include <catch2/catch.hpp>

#include "model/flops.h"
#include "report/small_config.h"

namespace dsmoe {
namespace {

const GpuSpec kGpu{"round", 1e12, 1e12, 1e10, 1e9, 1e11};

double bytes_of(const Roofline& roofline, const std::string& name) {
  for (const auto& kernel : roofline.kernels) {
    if (kernel.name == name) return kernel.bytes;
  }
  return 0;
}

}  // namespace

TEST_CASE("gpu_roofline: a dense layer equals the calculation by hand", "[report]") {
  ModelConfig config;
  config.vocab_size = 100;
  config.d_model = 8;
  config.n_layers = 2;
  config.attention.kind = AttentionKind::kDense;
  config.attention.n_heads = 4;
  config.attention.n_kv_heads = 2;
  config.attention.head_dim = 4;
  config.ffn.kind = FfnKind::kDense;
  config.ffn.activation = Activation::kGelu;
  config.ffn.d_ffn = 32;
  const auto step = training_roofline(config, kGpu, 10, 4);
  // Layers x (forward, backward, weight gradient): reads 10 x 8 and 8 x 16, writes 10 x 16, of 2
  // bytes.
  CHECK(bytes_of(step, "queries") == 2 * 3 * 2.0 * (80 + 128 + 160));
  // up in, hidden out; up and gradient in, hidden and gradient out.
  CHECK(bytes_of(step, "activation, times the experts' weights") == 2 * 2.0 * 320 * (2 + 4));
  CHECK(bytes_of(step, "cross entropy") == 3 * 2.0 * 10 * 100);
  CHECK(bytes_of(step, "router logits, softmax") == 0);
  // Of three products that read 10 x 8 numbers.
  CHECK(bytes_of(step, "sums of gradients") == 2 * 2.0 * 3 * 2 * 80);
  const auto decode = decode_roofline(config, kGpu, 1, 50, all_experts(config), false);
  CHECK(bytes_of(decode, "attention: store, tiles, join") == 2 * 2.0 * 2 * 8 * 50);
  CHECK(bytes_of(decode, "FFN down") == 2 * 2.0 * 32 * 8);
  // 512 weights of 2 bytes at 70 % of 1e10 bytes a second, and two launches.
  CHECK(decode.kernels[4].seconds == Approx(1024 / 7e9 + 2 * 1.5e-6));
}

TEST_CASE("gpu_roofline: a router equals the calculation by hand", "[report]") {
  ModelConfig config = small_config().model;
  config.d_model = 12;
  config.attention.kind = AttentionKind::kDense;
  config.ffn.n_experts = 8;
  config.ffn.router.kind = RouterKind::kSwiglu;
  config.ffn.router.d_hidden = 6;
  const auto layers = static_cast<double>(config.n_layers);
  const auto step = training_roofline(config, kGpu, 10, 5);
  // 12 hidden numbers of 2 bytes in, 8 logits and probabilities of 4 out, the weight of 6 x 8.
  CHECK(bytes_of(step, "router logits, softmax") == layers * (10 * (24 + 64) + 4 * 48));
  // Hidden numbers and their gradients; probabilities and two gradients; the weight, its gradient
  // and 2^14 partial sums an expert, written and read.
  CHECK(bytes_of(step, "router logits, softmax: gradients") ==
        layers * (10 * (48 + 96) + 2 * 4 * 48 + 2 * 4 * 8 * 16384.0));
  auto dense = config;
  dense.ffn.kind = FfnKind::kDense;
  dense.ffn.d_ffn = config.ffn.n_experts * config.ffn.d_expert;
  CHECK(bytes_of(step, "sums of gradients") -
            bytes_of(training_roofline(dense, kGpu, 10, 5), "sums of gradients") ==
        layers * 3.0 * 2 * 120);
  const auto launches_of = [](const Roofline& roofline, const std::string& name) {
    double sum = 0;
    for (const auto& kernel : roofline.kernels) sum += kernel.name == name ? kernel.launches : 0;
    return sum;
  };
  CHECK(launches_of(step, "router logits, softmax: gradients") == 2 * layers);
  const auto decode = decode_roofline(config, kGpu, 1, 50, all_experts(config), false);
  CHECK(launches_of(decode, "router hidden layer") == layers);
  CHECK(bytes_of(decode, "router hidden layer") == layers * 12 * 12 * 2);
  CHECK(launches_of(decode, "router logits, softmax, choice") == 2 * layers);
  CHECK(bytes_of(decode, "router logits, softmax, choice") == layers * 48 * 4);
  // Of a GPU that is slow at them, float32 products bound a router, at half the peak.
  auto slow = kGpu;
  slow.float32_flops = 1e3;
  const auto slow_step = training_roofline(config, slow, 10, 5);
  CHECK(slow_step.seconds() - step.seconds() == Approx(layers * 6 * 10 * 48 / 500.0).epsilon(1e-3));
}

TEST_CASE("gpu_roofline: its operations equal those that the model counts", "[report]") {
  auto config = small_config().model;
  config.vocab_size = 50000;
  config.d_model = 1024;
  config.attention.head_dim = 64;
  config.ffn.d_expert = 512;
  constexpr int64_t kTokens = 4096, kSeq = 512;
  const auto step = training_roofline(config, kGpu, kTokens, kSeq);
  const double counted = train_flops_per_token(config, kSeq) * kTokens;
  // Attention's scores are computed once more backward; logits of routers are no matrix products
  // here.
  CHECK(step.flops() == Approx(counted).epsilon(0.02));
}

TEST_CASE("gpu_roofline: sparse decoding reads the experts that some token uses", "[report]") {
  auto config = small_config().model;
  ActiveExperts half;
  const auto n = static_cast<size_t>(config.n_layers);
  half.moe.assign(n, 0.5 * static_cast<double>(config.ffn.n_experts));
  half.moa.assign(n, 0.5 * static_cast<double>(config.attention.n_experts));
  const auto all = decode_roofline(config, kGpu, 1, 100, half, false);
  const auto sparse = decode_roofline(config, kGpu, 1, 100, half, true);
  const auto two = decode_roofline(config, kGpu, 2, 100, half, true);
  CHECK(bytes_of(sparse, "FFN down") == Approx(0.5 * bytes_of(all, "FFN down")));
  CHECK(bytes_of(two, "FFN down") == Approx(0.75 * bytes_of(all, "FFN down")));
  CHECK(bytes_of(sparse, "head") == bytes_of(all, "head"));
  CHECK(sparse.seconds() < all.seconds());
}

}  // namespace dsmoe
