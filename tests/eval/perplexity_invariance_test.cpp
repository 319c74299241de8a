// One number for one model and text, whatever computes it.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>

#include "eval/perplexity.h"
#include "model/io/checkpoint_writer.h"
#include "model/io/packed_loader.h"
#include "model/io/tensor_link.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

constexpr int32_t kTextBoundary = 256;

EvalText invariance_text() {
  EvalText text;
  uint64_t state = 11;
  for (const int64_t length : {600, 40, 133}) {
    auto& sequence = text.sequences.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sequence.push_back(i % 90 == 0 ? kTextBoundary : static_cast<int32_t>(state >> 56));
    }
    text.n_bytes += length;
  }
  text.unscored_id = kTextBoundary;
  return text;
}

constexpr const char* kPlans[] = {"all", "top_k=2", "threshold=0.6", "moe:top_k=1;moa:top_k=2"};

Transformer make_float64_model() {
  auto model = make_tiny_model();
  model->to(at::kDouble);
  return model;
}

double float64_nats(Transformer& model, const EvalText& text, const RoutingPlan& plan) {
  return evaluate_perplexity(model, text, {.plan = plan, .compute_dtype = at::kDouble}).nats_total;
}

}  // namespace

TEST_CASE("perplexity is one number for every batch, execution and rank") {
  auto wide = make_float64_model();
  auto model = make_tiny_model();
  auto packed = make_tiny_model();
  pack_weights(packed, {.format = PackedFormat::kFloat32});
  const auto text = invariance_text();
  for (const std::string plan_text : kPlans) {
    const auto plan = parse_routing_plan(plan_text);
    const double expected = float64_nats(wide, text, plan.with(Execution::kDense));
    CHECK(float64_nats(wide, text, plan.with(Execution::kSparse)) ==
          Approx(expected).epsilon(1e-12));
    for (const int64_t batch : {1, 4, 32}) {
      for (const auto execution : {Execution::kDense, Execution::kSparse}) {
        INFO(plan_text << " batch " << batch << (execution == Execution::kDense ? " dense" : ""));
        const PerplexityOptions options{.batch = batch, .plan = plan.with(execution)};
        CHECK(evaluate_perplexity(model, text, options).nats_total ==
              Approx(expected).epsilon(1e-6));
        CHECK(evaluate_perplexity(packed, text, options).nats_total ==
              Approx(expected).epsilon(1e-6));
      }
    }
    for (const int64_t n_ranks : {2, 3}) {
      double nats = 0;
      int64_t n_tokens = 0;
      for (int64_t rank = 0; rank < n_ranks; ++rank) {
        const auto part = evaluate_perplexity(
            model, text, {.batch = 4, .plan = plan, .part = rank, .n_parts = n_ranks});
        nats += part.nats_total;
        n_tokens += part.tokens_scored;
      }
      CHECK(nats == Approx(expected).epsilon(1e-6));
      CHECK(n_tokens == evaluate_perplexity(model, text, {}).tokens_scored);
    }
  }
}

TEST_CASE("perplexity is the same before and after a checkpoint is written and read") {
  auto model = make_tiny_model();
  ModelSource source{model->config(), {}};
  for (const auto& [name, tensor] : named_tensors(*model)) {
    source.tensors.push_back(
        {name, tensor.sizes().vec(), [tensor = tensor] { return tensor.detach().contiguous(); }});
  }
  const TemporaryDirectory directory;
  write_converted(posix_io(), {directory.file("checkpoint")}, source, {});
  const auto checkpoint = find_checkpoint(posix_io(), directory.file("checkpoint"));
  auto read = load_model(posix_io(), checkpoint);
  auto mapped = load_packed_model(posix_io(), checkpoint, {.format = PackedFormat::kFloat32});
  auto packed = make_tiny_model();
  pack_weights(packed, {.format = PackedFormat::kFloat32});
  const auto text = invariance_text();
  for (const std::string plan_text : kPlans) {
    CAPTURE(plan_text);
    const PerplexityOptions options{.plan = parse_routing_plan(plan_text)};
    const double before = evaluate_perplexity(model, text, options).nats_total;
    CHECK(evaluate_perplexity(read, text, options).nats_total == before);
    const double packed_before = evaluate_perplexity(packed, text, options).nats_total;
    CHECK(evaluate_perplexity(mapped, text, options).nats_total == packed_before);
    CHECK(packed_before == Approx(before).epsilon(1e-6));
  }
}

}  // namespace dsmoe
