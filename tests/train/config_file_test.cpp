#include "train/config_file.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/error.h"

namespace dsmoe {
namespace {

using Catch::Contains;

RunConfig read_person(const std::string& text, const std::vector<std::string>& overrides = {}) {
  RunConfig config;
  const auto given = read_run_config_text(text, "t.yaml", overrides, config);
  check_used_keys(config, given);
  return config;
}

// As the command does: the config after the reading is checked.
std::string person_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    RunConfig config;
    const auto given = read_run_config_text(text, "t.yaml", overrides, config);
    check_used_keys(config, given);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<std::string> notes_of(const std::string& text) {
  RunConfig config;
  return read_run_config_text(text, "t.yaml", {}, config).notes;
}

TEST_CASE("config file: a key of a kind that is not used is refused with what it needs",
          "[train][config]") {
  const std::string moa = "model: {attention: {kind: moa}, ";
  const std::string dense = "model: {ffn: {kind: dense}, attention: {kind: dense}";
  CHECK(person_error("model:\n  attention: {kind: moa,\n    n_heads: 4}") ==
        "t.yaml:3: model.attention.n_heads: this config does not use the key; it needs "
        "model.attention.kind: dense");
  CHECK_THAT(person_error("seed: 1", {"model.attention.kind=moa", "model.attention.n_kv_heads=2"}),
             Contains("--model.attention.n_kv_heads: this config does not use the key"));
  CHECK_THAT(person_error(dense + ", moe: {n_experts: 8}}"), Contains("model.ffn.kind: moe"));
  CHECK_THAT(person_error(dense + ", moe: {router: {kind: linear}}}"),
             Contains("model.moe.router.kind"));
  CHECK_THAT(person_error(dense + ", moa: {n_experts: 8}}"), Contains("model.attention.kind: moa"));
  CHECK_THAT(person_error("model: {ffn: {kind: moe, d_ffn: 9}}"),
             Contains("model.ffn.kind: dense or partitioned"));
  CHECK_THAT(person_error("model: {moe: {router: {kind: linear, d_hidden: 9}}}"),
             Contains("it needs model.moe.router.kind: swiglu or mlp"));
  CHECK_THAT(person_error("model: {partition: {gates: softmax}}"),
             Contains("model.ffn.kind: partitioned"));
  CHECK_THAT(person_error("model: {positions: learned, rope_theta: 3}"),
             Contains("model.positions: rotary"));
  CHECK_THAT(person_error("model: {rope_scaling: {factor: 3}}"),
             Contains("model.rope_scaling.kind: llama3"));
  CHECK_THAT(person_error("train: {schedule: {decay_steps: 3}}"),
             Contains("train.schedule.kind: wsd"));
  CHECK_THAT(person_error("train: {schedule: {kind: constant, final_ratio: 0.1}}"),
             Contains("train.schedule.kind: cosine or wsd"));
  CHECK_THAT(person_error(dense + "}\ntrain: {loss: {moe_mi_weight: 1}}"),
             Contains("train.loss.moe_mi_weight"));
  CHECK_THAT(person_error("train: {loss: {sparsity_weight: 1}}"),
             Contains("partition.gates: sigmoid"));
  // A weight of zero says that the loss is off.
  CHECK(person_error(dense + "}\ntrain: {loss: {moe_mi_weight: 0, switch_weight: 0.0}}") ==
        "no error");
  CHECK_THAT(person_error("model: {attention: {kind: moa, n_heads: 4, n_kv_heads: 2}}"),
             Contains("config: 2 errors"));
}

TEST_CASE("config file: a kind of the command line leaves the file's keys of another kind",
          "[train][config]") {
  const std::string text = "train: {schedule: {kind: cosine, final_ratio: 0.1}}";
  CHECK(person_error(text, {"train.schedule.kind=constant"}) == "no error");
  CHECK(person_error("model: {moe: {router: {kind: swiglu, d_hidden: 8}}}",
                     {"model.moe.router.kind=linear"}) == "no error");
  CHECK_THAT(person_error(text, {"train.schedule.kind=constant", "train.schedule.final_ratio=0.2"}),
             Contains("--train.schedule.final_ratio: this config does not use the key"));
}

TEST_CASE("config file: a config that the program wrote passes with the keys of every kind",
          "[train][config]") {
  RunConfig config;
  config.run_dir = "run";
  config.data.train = {"shards"};
  const auto yaml = config_to_yaml([&](ConfigVisitor& v) { describe(v, config); });
  CHECK(person_error(yaml) == "no error");
  CHECK(notes_of(yaml).empty());
  CHECK_THAT(person_error(yaml, {"model.attention.n_heads=4"}),
             Contains("--model.attention.n_heads: this config does not use the key"));
}

TEST_CASE("config file: every shipped config is read without note or unused key",
          "[train][config]") {
  int n_files = 0;
  for (const auto* folder : {"/configs", "/configs/bench"}) {
    for (const auto& file :
         std::filesystem::directory_iterator(std::string(DSMOE_SOURCE_DIR) + folder)) {
      if (file.path().extension() != ".yaml") continue;
      INFO(file.path());
      RunConfig config;
      const auto given = read_run_config(file.path().string(), {}, config);
      CHECK(given.notes.empty());
      CHECK_NOTHROW(check_used_keys(config, given));
      ++n_files;
    }
  }
  CHECK(n_files >= 31);
}

TEST_CASE("config file: a kind that is left out is the one whose keys are set", "[train][config]") {
  auto config = read_person("model: {attention: {n_heads: 4, n_kv_heads: 2}}");
  CHECK(config.model.attention.kind == AttentionKind::kDense);
  CHECK(config.model.attention.head_dim == AttentionConfig{}.head_dim);
  CHECK_THAT(notes_of("model: {attention: {n_heads: 4}}")[0],
             Contains("model.attention.kind is left out: dense"));
  CHECK(read_person("model: {ffn: {d_ffn: 64}}").model.ffn.kind == FfnKind::kDense);
  CHECK(read_person("model: {moe: {n_experts: 4}}").model.ffn.kind == FfnKind::kMoe);
  CHECK_THAT(person_error("model: {attention: {n_heads: 4}, moa: {n_experts: 4}}"),
             Contains("model.attention.n_heads: this config does not use the key"));
  CHECK_THAT(person_error("model: {ffn: {d_ffn: 64}, moe: {n_experts: 4}}"),
             Contains("model.ffn.d_ffn: this config does not use the key"));
  // Kinds come from the checkpoint.
  RunConfig from;
  CHECK(read_run_config_text(
            "model: {attention: {n_heads: 4}}\ntrain: {init_from: x}", "t.yaml", {}, from)
            .notes.empty());
  CHECK(from.model.attention.kind == AttentionKind::kMoa);
}

TEST_CASE("config file: a nanoGPT config has nanoGPT's shape", "[train][config]") {
  const auto config = read_person(
      "out_dir: out\nn_layer: 6\nn_head: 6\nn_embd: 384\nblock_size: 256\nmax_iters: 5000\n"
      "learning_rate: 1e-3\nwarmup_iters: 100\nbatch_size: 64\ndropout: 0.2\nbeta2: 0.99\n"
      "gradient_accumulation_steps: 2\neval_interval: 250\nweight_decay: 1e-1\ngrad_clip: 1.0\n"
      "dtype: float32\n");
  CHECK(config.run_dir == "out");
  CHECK(config.model.n_layers == 6);
  CHECK(config.model.attention.kind == AttentionKind::kDense);
  CHECK(config.model.attention.n_heads == 6);
  CHECK(config.model.attention.n_kv_heads == 6);
  CHECK(config.model.attention.head_dim == 64);
  CHECK(config.model.max_seq_len == 256);
  CHECK(config.train.steps == 5000);
  CHECK(config.train.schedule.peak == 1e-3);
  CHECK(config.train.accumulation == 2);
  CHECK(config.train.compute_dtype == ComputeDtype::kFloat32);
}

TEST_CASE("config file: a Mixtral config has experts of its intermediate size", "[train][config]") {
  const auto config = read_person(
      "model: {hidden_size: 256, intermediate_size: 96, num_hidden_layers: 2, num_local_experts: 8,"
      " num_experts_per_tok: 2, num_attention_heads: 8, num_key_value_heads: 2}");
  CHECK(config.model.ffn.kind == FfnKind::kMoe);
  CHECK(config.model.ffn.n_experts == 8);
  CHECK(config.model.ffn.d_expert == 96);
  CHECK(config.model.training_policy == "top_k=2");
  CHECK(config.model.attention.n_kv_heads == 2);
  CHECK(config.model.attention.head_dim == 32);
  CHECK_NOTHROW(config.model.validate());
}

TEST_CASE("config file: keys that say the same twice contradict in one place", "[train][config]") {
  CHECK_THAT(person_error("train:\n  steps: 10\n  tokens: 1e9"),
             Contains("t.yaml:3: train.tokens: contradicts train.steps (t.yaml:2: train.steps)"));
  CHECK_THAT(person_error("train: {tokens: 1M, epochs: 2}"), Contains("train.epochs: contradicts"));
  CHECK_THAT(person_error("train: {accumulation: 2, batch_tokens: 1M}"),
             Contains("train.batch_tokens: contradicts train.accumulation"));
  CHECK_THAT(person_error("train: {batch_sequences: 2, batch_tokens: 1M}"),
             Contains("contradicts"));
  CHECK_THAT(person_error("train: {schedule: {warmup: 2%, warmup_steps: 3}}"),
             Contains("train.schedule.warmup: contradicts train.schedule.warmup_steps"));
  CHECK_THAT(person_error("seed: 1", {"train.steps=3", "train.tokens=5"}),
             Contains("--train.tokens: contradicts train.steps"));
}

TEST_CASE("config file: the command line replaces the file's way to say the same",
          "[train][config]") {
  auto config = read_person("train: {tokens: 1e9}", {"train.steps=7"});
  CHECK(config.train.steps == 7);
  CHECK(config.train.tokens == 0);
  config = read_person("train: {steps: 7}", {"train.tokens=1M"});
  CHECK(config.train.tokens == 1'000'000);
  config = read_person("train: {tokens: 1e9, schedule: {warmup: 2%}}",
                       {"train.epochs=2", "train.schedule.warmup_steps=3"});
  CHECK(config.train.tokens == 0);
  CHECK(config.train.epochs == 2);
  CHECK(config.train.schedule.warmup.empty());
  // Zero takes a key of the file away.
  config = read_person("train: {tokens: 1e9}", {"train.tokens=0"});
  CHECK_FALSE(config.train.has_units());
}

}  // namespace
}  // namespace dsmoe
