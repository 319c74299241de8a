// The decision table on another device than the CPU, with its kernels.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <iterator>

#include "csrc_kernels/expert_gemv/kernels.h"
#include "model/experts/expert_ffn.h"
#include "support/test_device.h"

namespace dsmoe {
namespace {

struct Row {
  RoutingPolicy policy;
  ExpertRole role;
  int64_t n_tokens;
  bool gradient;
  at::ScalarType type;
  const ExpertBackend& backend;
};

}  // namespace

TEST_CASE("choose_backend: on a device, by use, tokens, gradient and type", "[device_ops]") {
  const auto device = test_device();
  ExpertFfn ffn(16, 4, 8, Activation::kGelu, Biases::kNone);
  const auto top = RoutingPolicy::top_k(2).with(Execution::kSparse);
  const auto open = RoutingPolicy::threshold(0.5).with(Execution::kSparse);
  const auto dense = open.with(Execution::kDense);
  constexpr auto kFfn = ExpertRole::kFfn;
  constexpr auto kAttention = ExpertRole::kAttention;
  constexpr auto kDecoding = ExpertRole::kDecoding;
  constexpr int64_t kFew = kMostGemvTokens;
  const Row rows[] = {{dense, kFfn, kFew, false, at::kFloat, dense_backend()},
                      {dense, kDecoding, kFew, false, at::kFloat, dense_backend()},
                      {open, kFfn, kFew, false, at::kFloat, gemv_backend()},
                      {open, kFfn, kFew, true, at::kFloat, grouped_backend()},
                      {open, kFfn, kFew + 1, false, at::kBFloat16, device_rows_backend()},
                      {open, kFfn, kFew, false, at::kDouble, grouped_backend()},
                      {top, kFfn, kFew, true, at::kBFloat16, device_rows_backend()},
                      {open, kAttention, kFew, false, at::kFloat, device_rows_backend()},
                      {open, kAttention, kFew, true, at::kFloat, grouped_backend()},
                      {open, kDecoding, kFew, false, at::kFloat, gemv_backend()},
                      {open, kDecoding, kFew + 1, false, at::kFloat, dense_backend()}};
  for (size_t i = 0; i < std::size(rows); ++i) {
    CAPTURE(i);
    const auto& row = rows[i];
    const at::AutoGradMode mode(row.gradient);
    const auto x = at::zeros({row.n_tokens, 16}, at::TensorOptions(row.type).device(device));
    const TokenChoice choice{{}, {}, most_selected(row.policy.rule(1.0))};
    const auto& backend = choose_backend({ffn->experts(), row.policy, choice, row.role}, x);
    CHECK(&backend == &row.backend);
    const bool waits =
        &backend == &grouped_backend() ||
        (&backend == &device_rows_backend() && (is_emulated() || row.type != at::kBFloat16));
    CHECK(backend.needs_host_sync(x) == waits);
  }
  // Widths that are no multiples of 16 bytes.
  const at::NoGradGuard no_grad;
  ExpertFfn odd(16, 4, 7, Activation::kGelu, Biases::kNone);
  const auto x = at::zeros({kFew + 1, 16}, at::TensorOptions(at::kFloat).device(device));
  CHECK(&choose_backend({odd->experts(), top}, x) == &grouped_backend());
}

}  // namespace dsmoe
