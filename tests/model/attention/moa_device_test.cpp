// A mixture of attention experts on another device than the CPU, with its kernels.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "model/attention/moa_block.h"
#include "model/module_testing.h"
#include "support/fake_device.h"
#include "support/test_device.h"

namespace dsmoe {
namespace {

struct Form {
  int64_t d_model;
  int64_t n_experts;
  int64_t heads_per_expert;
  int64_t head_dim;
  int64_t batch;
  int64_t seq;
  Biases biases;
  bool rotary;
  bool documents;  // each sequence is two of them
};

// Widths that are multiples of 16 bytes, as grouped products on a device require.
const std::vector<Form> kForms = {{16, 4, 1, 8, 2, 5, Biases::kNone, true, false},
                                  {24, 3, 2, 4, 1, 9, Biases::kAll, true, false},
                                  {8, 5, 2, 8, 3, 4, Biases::kOutput, false, true},
                                  {16, 4, 2, 8, 2, 6, Biases::kAll, true, true},
                                  {16, 1, 2, 8, 2, 3, Biases::kAll, true, false}};
constexpr at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16};

double tolerance_of(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 2e-5 : 2e-2;
}

at::ScalarType wide(at::ScalarType type) { return type == at::kDouble ? type : at::kFloat; }

// Parameters that are numbers of `rounding`, stored as training on a device does.
MoABlock make_block(const Form& form, at::ScalarType rounding) {
  AttentionConfig config;
  config.head_dim = form.head_dim;
  config.n_experts = form.n_experts;
  config.heads_per_expert = form.heads_per_expert;
  config.router.kind = RouterKind::kLinear;
  MoABlock block(form.d_model, config, form.biases);
  randomise(*block, 41, 0.3);
  block->to(rounding);
  return block;
}

AttentionContext context_of(const Form& form, at::ScalarType type, at::Device device) {
  AttentionContext context;
  context.positions = at::arange(form.seq, at::kLong).expand({form.batch, form.seq});
  auto in_document = context.positions;
  if (form.documents) {
    const auto second = context.positions.ge(2);
    context.first_keys = at::where(second, 2, at::zeros_like(context.positions)).to(device);
    in_document = context.positions - context.first_keys.cpu();
  }
  if (form.rotary) {
    const auto tables =
        rotary_tables(in_document, rotary_frequencies(form.head_dim, 10000.0), wide(type));
    context.rotary = {tables.cos.to(device), tables.sin.to(device)};
  }
  context.positions = context.positions.to(device);
  return context;
}

// How far the router's choice is from another one.
double margin(const at::Tensor& probs, const RoutingPolicy& policy) {
  const auto n_experts = probs.size(1);
  double least = 1.0;
  const auto take = [&](const at::Tensor& gaps) {
    if (gaps.numel() > 0) least = std::min(least, gaps.abs().min().item<double>());
  };
  const auto ordered = std::get<0>(probs.sort(1, /*descending=*/true));
  const int64_t k = policy.selection == Selection::kTopK ? policy.k : policy.max_experts;
  if (k > 0 && k < n_experts) take(ordered.select(1, k - 1) - ordered.select(1, k));
  if (policy.selection != Selection::kTopK) {
    take(probs - policy.epsilon / static_cast<double>(n_experts));
  }
  return least;
}

// Tokens with the same experts on the CPU and on a device that rounds.
at::Tensor clear_input(const Form& form, const RoutingPolicy& policy, at::ScalarType rounding) {
  const at::NoGradGuard no_grad;
  auto block = make_block(form, rounding);
  block->to(at::kDouble);
  for (uint64_t seed = 51;; ++seed) {
    REQUIRE(seed < 2000);
    const auto x = RandomTensors(seed)
                       .normal({form.batch, form.seq, form.d_model})
                       .to(rounding)
                       .to(at::kDouble);
    const auto probs = block->router(x).router_probs.flatten(0, 1);
    if (margin(probs, policy) > (rounding == at::kBFloat16 ? 0.01 : 1e-4)) return x;
  }
}

struct Results {
  at::Tensor selected;
  std::vector<at::Tensor> numbers;  // y, then gradients where they were asked for
};

Results run(const Form& form,
            const RoutingPolicy& policy,
            at::ScalarType rounding,
            at::ScalarType type,
            at::Device device,
            bool gradients) {
  const at::AutoGradMode mode(gradients);
  auto block = make_block(form, rounding);
  block->to(wide(type));
  block->to(device);
  auto x = clear_input(form, policy, rounding).to(type).to(device);
  if (gradients) x.requires_grad_(true);
  const auto output = block(x, context_of(form, type, device), 0, policy);
  const auto on_cpu = [](const at::Tensor& t) {
    return t.defined() ? t.detach().cpu().to(at::kDouble) : at::Tensor();
  };
  Results results{output.routing.selected.cpu(), {on_cpu(output.y)}};
  if (gradients) {
    output.y.backward(RandomTensors(43).normal(x.sizes()).to(rounding).to(type).to(device));
    results.numbers.push_back(on_cpu(x.grad()));
    for (const auto& p : block->parameters()) results.numbers.push_back(on_cpu(p.grad()));
  }
  return results;
}

void check_equal_on_device(const std::string& other,
                           const Results& got,
                           const Results& expected,
                           at::ScalarType type) {
  REQUIRE(at::equal(got.selected, expected.selected));
  REQUIRE(got.numbers.size() == expected.numbers.size());
  for (size_t i = 0; i < got.numbers.size(); ++i) {
    CAPTURE(other, i);
    REQUIRE(got.numbers[i].defined() == expected.numbers[i].defined());
    if (!got.numbers[i].defined()) continue;
    const double scale = 1.0 + expected.numbers[i].abs().max().item<double>();
    CHECK(max_difference(got.numbers[i], expected.numbers[i]) <= tolerance_of(type) * scale);
  }
}

// Sparse on the device against the CPU's float64, and against dense on the device.
void check_sparse(const Form& form, const RoutingPolicy& policy, bool gradients) {
  for (const auto type : kTypes) {
    CAPTURE(policy.to_string(), form.n_experts, form.heads_per_expert, type);
    const auto on = [&](at::ScalarType t, at::Device device, Execution execution) {
      return run(form, policy.with(execution), type, t, device, gradients);
    };
    const auto got = on(type, test_device(), Execution::kSparse);
    check_equal_on_device("the CPU", got, on(at::kDouble, at::kCPU, Execution::kSparse), type);
    check_equal_on_device("dense", got, on(type, test_device(), Execution::kDense), type);
  }
}

}  // namespace

TEST_CASE("MoABlock: sparse values and gradients on a device equal those of the CPU",
          "[device_moa]") {
  for (const auto& form : kForms) {
    check_sparse(form, RoutingPolicy::top_k(1), true);
    check_sparse(form, RoutingPolicy::top_k(form.n_experts), true);
    if (form.n_experts > 2) check_sparse(form, RoutingPolicy::top_k(2), true);
    // Up to two experts a token, or none.
    check_sparse(form, RoutingPolicy::threshold(1.1, 2), true);
    // Without a bound; the pairs are listed on the host.
    check_sparse(form, RoutingPolicy::threshold(0.9), true);
  }
}

TEST_CASE("MoABlock: sparse on a device without gradient accepts every selection", "[device_moa]") {
  for (const auto& form : kForms) {
    check_sparse(form, RoutingPolicy::all(), false);
    check_sparse(form, RoutingPolicy::top_k(1), false);
    check_sparse(form, RoutingPolicy::threshold(0.9), false);
    check_sparse(form, RoutingPolicy::threshold(1.1), false);   // some tokens select no expert
    check_sparse(form, RoutingPolicy::threshold(0.0), false);   // all tokens select all experts
    check_sparse(form, RoutingPolicy::threshold(50.0), false);  // no token selects an expert
  }
}

TEST_CASE("MoABlock: a device cache continues a prompt by a second part and by single tokens",
          "[device_moa]") {
  const at::NoGradGuard no_grad;
  for (const auto& form : kForms) {
    if (form.documents || form.seq < 5) continue;
    for (const auto& policy : {RoutingPolicy::top_k(1), RoutingPolicy::threshold(0.9)}) {
      for (const auto type : {at::kFloat, at::kBFloat16}) {
        CAPTURE(policy.to_string(), form.n_experts, type);
        const auto sparse = policy.with(Execution::kSparse);
        const auto expected = run(form, sparse, type, at::kDouble, at::kCPU, false);
        auto block = make_block(form, type);
        block->to(at::kFloat);
        block->to(test_device());
        const auto x = clear_input(form, sparse, type).to(type).to(test_device());
        KvCache cache(
            {1, form.heads_per_expert, form.head_dim, type, test_device()}, form.batch, form.seq);
        std::vector<at::Tensor> parts;
        int64_t begin = 0;
        for (const int64_t length : {form.seq - 4, int64_t{2}, int64_t{1}, int64_t{1}}) {
          auto context = context_of(form, type, test_device());
          context.positions = context.positions.narrow(1, begin, length).contiguous();
          // Rows of the tables are those of all tokens, [batch, length].
          const auto of_part = [&](const at::Tensor& table) {
            return table.view({form.batch, form.seq, -1})
                .narrow(1, begin, length)
                .flatten(0, 1)
                .contiguous();
          };
          context.rotary = {of_part(context.rotary.cos), of_part(context.rotary.sin)};
          context.cache = &cache;
          cache.begin_pass(length);
          parts.push_back(block(x.narrow(1, begin, length).contiguous(), context, 0, sparse).y);
          cache.advance(length);
          begin += length;
        }
        REQUIRE(begin == form.seq);
        check_equal_on_device("one pass",
                              {expected.selected, {at::cat(parts, 1).cpu().to(at::kDouble)}},
                              expected,
                              type);
      }
    }
  }
}

TEST_CASE("choose_attention_path: on a device", "[device_moa]") {
  KvCache cache({1, 2, 8, at::kFloat, test_device()}, 2, 8);
  KvCache unbatched({1, 2, 8, at::kFloat, test_device()});
  AttentionContext context;
  context.cache = &cache;
  const auto path = [&](int64_t seq, at::ScalarType dtype = at::kFloat) {
    return choose_attention_path(context, seq, dtype, test_device());
  };
  CHECK(path(1) == AttentionPath::kPass);  // gradients, nothing stored yet
  const at::NoGradGuard no_grad;
  CHECK(path(3) == AttentionPath::kPass);
  CHECK(path(1) == AttentionPath::kDecoding);
  CHECK(path(1, at::kBFloat16) == AttentionPath::kPass);
  cache.begin_pass(3);
  cache.advance(3);
  CHECK(path(3) == AttentionPath::kAllStored);
  CHECK(path(1) == AttentionPath::kDecoding);
  CHECK(path(1, at::kBFloat16) == AttentionPath::kAllStored);
  context.cache = &unbatched;
  CHECK(path(1) == AttentionPath::kAllStored);
}

TEST_CASE("MoABlock: sparse on a device needs no host sync", "[device_moa]") {
  if (!is_emulated()) return;  // only the fake device detects a sync
  for (const auto& form : kForms) {
    auto block = make_block(form, at::kBFloat16);
    block->to(at::kFloat);
    block->to(test_device());
    const auto x = RandomTensors(3)
                       .normal({form.batch, form.seq, form.d_model}, at::kBFloat16)
                       .to(test_device())
                       .requires_grad_(true);
    const auto context = context_of(form, at::kBFloat16, test_device());
    const auto upstream = RandomTensors(4).normal(x.sizes(), at::kBFloat16).to(test_device());
    const auto forward = [&](const RoutingPolicy& policy) {
      return block(x, context, 0, policy.with(Execution::kSparse)).y;
    };
    forward(RoutingPolicy::top_k(1));  // copies tables to the device once
    const ForbidWaits forbidden;
    forward(RoutingPolicy::top_k(1)).backward(upstream);
    forward(RoutingPolicy::threshold(0.9, 2)).backward(upstream);
    CHECK(x.grad().defined());
    CHECK_THROWS_WITH(forward(RoutingPolicy::threshold(0.9)), Catch::Contains("waits for it"));
    const at::NoGradGuard no_grad;
    forward(RoutingPolicy::threshold(0.9));
    forward(RoutingPolicy::all());
  }
}

}  // namespace dsmoe
