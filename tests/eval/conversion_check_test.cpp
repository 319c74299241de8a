#include "eval/conversion_check.h"

#include <ATen/core/Tensor.h>

#include <catch2/catch.hpp>

#include "model/moe/ffn_partition.h"
#include "model/named_tensors.h"

namespace dsmoe {
namespace {

ModelConfig small_dense_config() {
  ModelConfig config;
  config.vocab_size = 31;
  config.d_model = 8;
  config.n_layers = 2;
  config.max_seq_len = 12;
  config.attention.kind = AttentionKind::kDense;
  config.attention.head_dim = 4;
  config.attention.n_heads = 2;
  config.attention.n_kv_heads = 1;
  config.ffn.kind = FfnKind::kDense;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.d_ffn = 12;
  return config;
}

ModelSource source_of(const Transformer& model) {
  ModelSource source{.config = model->config(), .tensors = {}};
  for (const auto& [name, tensor] : named_parameters(*model)) {
    const auto value = tensor.detach().clone();
    source.tensors.push_back({name, value.sizes().vec(), [value] { return value; }});
  }
  return source;
}

ModelSource small_dense_source(uint64_t seed) {
  Transformer model(small_dense_config());
  init_weights(model, seed, 0.5);
  return source_of(model);
}

EvalText conversion_text() {
  EvalText text;
  auto& sequence = text.sequences.emplace_back();
  for (int32_t i = 0; i < 60; ++i) sequence.push_back(i * i % 31);
  text.n_bytes = 60;
  return text;
}

double perplexity_of_source(const ModelSource& source, const RoutingPlan& plan, bool force_gates) {
  auto model = instantiate(source);
  model->force_gates(force_gates);
  PerplexityOptions options;
  options.plan = plan;
  return evaluate_perplexity(model, conversion_text(), options).perplexity();
}

}  // namespace

TEST_CASE("compare_conversion: a copy has the logits of its source and no numbers of gates") {
  const auto source = small_dense_source(1);
  const auto copy = compare_conversion(source, source, /*is_cut=*/false, conversion_text());
  CHECK(copy.source_perplexity == perplexity_of_source(source, RoutingPolicy::all(), false));
  CHECK(copy.max_abs_logit_error == 0);
  CHECK_FALSE(copy.forced_gates_perplexity);
  CHECK_FALSE(copy.perplexity);
  const auto other =
      compare_conversion(source, small_dense_source(2), /*is_cut=*/false, conversion_text());
  CHECK(other.max_abs_logit_error > 0.01);
}

TEST_CASE("compare_conversion: a cut model is compared with gates at 1 and under its own policy") {
  const auto source = small_dense_source(1);
  const auto cut = partition_ffn(source, {.n_experts = 4, .router_std = 0.5});
  const auto comparison = compare_conversion(source, cut, /*is_cut=*/true, conversion_text());
  CHECK(comparison.max_abs_logit_error < 1e-5);
  REQUIRE(comparison.forced_gates_perplexity);
  REQUIRE(comparison.perplexity);
  CHECK(*comparison.forced_gates_perplexity == Approx(comparison.source_perplexity).epsilon(1e-5));
  CHECK(*comparison.perplexity ==
        perplexity_of_source(cut, parse_routing_plan("threshold=0.5"), false));
  CHECK(std::abs(*comparison.perplexity / comparison.source_perplexity - 1) > 1e-3);
}

TEST_CASE("compare_conversion: a copy of a cut model keeps its gates") {
  const auto cut = partition_ffn(small_dense_source(1), {.n_experts = 4, .router_std = 0.5});
  const auto copy = compare_conversion(cut, cut, /*is_cut=*/false, conversion_text());
  CHECK(copy.max_abs_logit_error == 0);
}

TEST_CASE("compare_joined: the dense export diverges from a cut model under its own policy only") {
  const auto source = small_dense_source(1);
  const auto dense = instantiate(source);
  auto cut = instantiate(partition_ffn(source, {.n_experts = 4, .router_std = 0.5}));
  const auto plan = parse_routing_plan("threshold=0.5");
  const auto text = conversion_text();
  const auto own = compare_joined(cut, plan, dense, text);
  CHECK(own.kl_per_token() > 1e-3);
  CHECK(own.reference.perplexity() == perplexity_of_source(source_of(cut), plan, false));
  CHECK(own.model.perplexity() == perplexity_of_source(source, RoutingPolicy::all(), false));
  cut->force_gates(true);
  CHECK(compare_joined(cut, plan, dense, text).kl_per_token() < 1e-9);
}

TEST_CASE("random_eval_text: tokens of the model, the same each time") {
  const auto config = small_dense_config();
  const auto text = random_eval_text(config);
  REQUIRE(text.sequences.size() == 1);
  CHECK(text.sequences[0].size() == 4 * 12);
  for (const int32_t id : text.sequences[0]) CHECK((id >= 0 && id < 31));
  CHECK(text.sequences == random_eval_text(config).sequences);
}

}  // namespace dsmoe
