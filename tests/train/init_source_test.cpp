#include "train/init_source.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>

#include "common/error.h"
#include "model/io/checkpoint_writer.h"
#include "model/named_tensors.h"
#include "support/tiny_model_config.h"
#include "train/change_one_key.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

using Catch::Contains;

Describe describer(ModelConfig& model) {
  return [&model](ConfigVisitor& visitor) { describe(visitor, model); };
}

// Together they give every key of the model an effect.
std::map<std::string, ModelConfig> base_models() {
  std::map<std::string, ModelConfig> models{{"moe", tiny_model_config()}};
  auto dense = tiny_model_config();
  dense.attention.kind = AttentionKind::kDense;
  dense.attention.n_heads = 4;
  dense.attention.n_kv_heads = 2;
  dense.ffn.kind = FfnKind::kDense;
  dense.ffn.d_ffn = 15;
  models["dense"] = dense;
  dense.positions = PositionKind::kLearned;
  dense.bias = true;
  models["learned"] = dense;
  auto scaled = tiny_model_config();
  scaled.rope_scaling.kind = RopeScalingKind::kLlama3;
  scaled.rope_scaling.original_max_seq_len = 16;
  models["scaled"] = scaled;
  auto cut = tiny_model_config();
  cut.ffn.kind = FfnKind::kPartitioned;
  cut.ffn.d_ffn = cut.ffn.n_experts * cut.ffn.d_expert;
  models["partitioned"] = cut;
  return models;
}

InitSource source_of(const ModelConfig& model) {
  return {.directory = "the-source", .model = model, .tokenizer_fingerprint = "t"};
}

struct Changed {
  RunConfig config;
  std::string key;
  InitRule init = InitRule::kCompared;  // beside the other values of the base
};

// The base with its n-th key changed; an empty key once there is none.
Changed change_key(const ModelConfig& base, size_t n) {
  Changed changed;
  changed.config.model = base;
  ChangeOneKey change(n);
  describe(change, changed.config.model);
  changed.key = change.changed;
  changed.init = change.init;
  return changed;
}

bool is_equal(ModelConfig a, ModelConfig b) {
  return compare_configs(describer(a), describer(b)).empty();
}

at::Tensor logits_of(Transformer& model) {
  const at::NoGradGuard no_grad;
  const auto tokens = at::randint(
      257, {2, 20}, at::detail::createCPUGenerator(5), at::TensorOptions().dtype(at::kLong));
  return model(tokens, parse_routing_plan("moe:top_k=2;moa:all")).logits;
}

}  // namespace

TEST_CASE("init_from: each single changed model key is refused, allowed or copied by its rule",
          "[train][init]") {
  std::map<std::string, int> n_compared;  // by key: models where it acts
  for (const auto& [name, base] : base_models()) {
    for (size_t n = 0;; ++n) {
      const auto [config, key, init] = change_key(base, n);
      if (key.empty()) break;
      CAPTURE(name, key);
      n_compared[key] += init == InitRule::kCompared;
      const auto source = source_of(base);

      auto given = config;
      if (init == InitRule::kCompared) {
        CHECK_THROWS_WITH(inherit_model(given, {key}, source),
                          Catch::StartsWith(key + ": expected ") && Contains("the-source") &&
                              Contains("train.init_override"));
        given.train.init_override = {key};
      }
      const auto allowed = inherit_model(given, {key}, source);
      CHECK(is_equal(given.model, config.model));
      CHECK(allowed.taken.empty());
      CHECK(allowed.differ.size() == (init == InitRule::kFree ? 0 : 1));

      auto silent = config;
      const auto taken = inherit_model(silent, {}, source);
      const bool is_kept = init == InitRule::kFree;
      CHECK(is_equal(silent.model, is_kept ? config.model : base));
      REQUIRE(taken.taken.size() == (is_kept ? 0 : 1));
      if (!is_kept) CHECK(taken.taken[0].key == key);

      auto overridden = config;
      overridden.train.init_override = {key};
      inherit_model(overridden, {}, source);
      CHECK(is_equal(overridden.model, config.model));
    }
  }
  std::vector<std::string> never_compared;
  for (const auto& [key, count] : n_compared) {
    if (count == 0) never_compared.push_back(key);
  }
  // None of these changes what given weights compute under a given policy.
  CHECK(never_compared ==
        std::vector<std::string>{"model.dropout", "model.partition.ste", "model.training_policy"});
}

TEST_CASE("init_from: a key that is not compared leaves the logits of given weights bit-identical",
          "[train][init]") {
  int n_checked = 0;
  for (const auto& [name, base] : base_models()) {
    Transformer model(base);
    init_weights(model, 3, 0.3);
    model->eval();
    const auto expected = logits_of(model);
    for (size_t n = 0;; ++n) {
      const auto [config, key, init] = change_key(base, n);
      if (key.empty()) break;
      if (init == InitRule::kCompared || key == "model.training_policy") continue;
      CAPTURE(name, key);
      try {
        config.model.validate();
      } catch (const Error&) {
        continue;  // there is no such model
      }
      Transformer changed(config.model);
      const auto from = named_tensors(*model);
      const auto to = named_tensors(*changed);
      REQUIRE(from.size() == to.size());
      for (size_t i = 0; i < from.size(); ++i) {
        REQUIRE(from[i].first == to[i].first);
        REQUIRE(from[i].second.sizes() == to[i].second.sizes());
        const at::NoGradGuard no_grad;
        to[i].second.detach().copy_(from[i].second);
      }
      changed->eval();
      CHECK(at::equal(logits_of(changed), expected));
      ++n_checked;
    }
  }
  CHECK(n_checked > 40);
}

TEST_CASE(
    "init_from: a config without model keys gets the source's model; vocab_size 0 counts as unset",
    "[train][init]") {
  for (const auto& [name, base] : base_models()) {
    CAPTURE(name);
    RunConfig config;
    config.model.vocab_size = 0;
    auto expected = base;
    const auto inherited = inherit_model(config, {"model.vocab_size", "seed"}, source_of(base));
    CHECK(inherited.differ.empty());
    // What has no effect in that model keeps the config's value.
    for (const auto& change : compare_configs(describer(expected), describer(config.model))) {
      CHECK(change.init == InitRule::kFree);
    }
    CHECK(config.model.vocab_size == base.vocab_size);
  }
  RunConfig config;
  config.train.init_override = {"model.rope_thets"};
  CHECK_THROWS_WITH(inherit_model(config, {}, source_of(tiny_model_config())),
                    Contains("train.init_override") && Contains("model.rope_thets"));
}

TEST_CASE("init_from: a resuming run copies unset keys from its own checkpoint", "[train][init]") {
  const TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), make_tiny_shards(directory));
  config.train.steps = 2;
  config.model.norm_eps = 1e-4;
  Trainer(posix_io(), config, "auto").run();

  RunConfig next;
  next.run_dir = directory.file("next");
  next.train.init_from = directory.file("run");
  for (const auto* resume : {"auto", "none"}) {
    const auto source = find_init_source(posix_io(), next, resume);
    REQUIRE(source);
    CHECK_FALSE(source->is_own);
    CHECK(source->model.norm_eps == 1e-4);
    CHECK_FALSE(source->tokenizer_fingerprint.empty());
  }
  next.train.init_from = directory.file("gone");
  CHECK_THROWS_WITH(find_init_source(posix_io(), next, "auto"), Contains("gone"));
  next.run_dir = directory.file("run");
  const auto own = find_init_source(posix_io(), next, "auto");
  REQUIRE(own);
  CHECK(own->is_own);
  next.model.norm_eps = 1e-3;
  CHECK_NOTHROW(inherit_model(next, {"model.norm_eps"}, *own));  // refused by the resume's rules
  CHECK(next.model.d_model == 12);
  next.train.init_from.clear();
  CHECK_FALSE(find_init_source(posix_io(), next, "auto"));
}

TEST_CASE("Trainer: weights with a contradicting config or tokenizer are refused",
          "[train][init]") {
  const TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), make_tiny_shards(directory));
  config.train.steps = 1;
  Trainer(posix_io(), config, "none").run();
  config.train.init_from = directory.file("run");
  config.run_dir = directory.file("same");
  CHECK_NOTHROW(Trainer(posix_io(), config, "none"));
  config.run_dir = directory.file("other");
  config.model.rope_theta = 500000;
  CHECK_THROWS_WITH(Trainer(posix_io(), config, "none"), Contains("model.rope_theta"));
  config.train.init_override = {"model.rope_theta"};
  CHECK_NOTHROW(Trainer(posix_io(), config, "none"));

  InitSource source;
  source.tokenizer_fingerprint = "theirs";
  CHECK_THROWS_WITH(check_init_tokenizer(config, "ours", source),
                    Contains("data.train") && Contains("theirs") && Contains("ours"));
  CHECK_NOTHROW(check_init_tokenizer(config, "theirs", source));
  config.train.init_override = {"tokenizer"};
  CHECK_NOTHROW(check_init_tokenizer(config, "ours", source));
}

}  // namespace dsmoe
