#include "train/train_config.h"

#include <catch2/catch.hpp>

#include "common/config_reader.h"
#include "common/error.h"
#include "common/io.h"

namespace dsmoe {
namespace {

RunConfig valid_config() {
  RunConfig config;
  config.run_dir = "run";
  config.data.train = {"shards"};
  return config;
}

std::string message_of(const RunConfig& config) {
  try {
    config.validate();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("RunConfig: contradictions between keys are named", "[train][config]") {
  CHECK(message_of(valid_config()).empty());
  auto config = valid_config();
  config.run_dir = "";
  CHECK_THAT(message_of(config), Catch::Contains("run_dir"));
  config = valid_config();
  config.data.train = {};
  CHECK_THAT(message_of(config), Catch::Contains("data.train"));
  config = valid_config();
  config.data.weights = {1, 2};
  CHECK_THAT(message_of(config), Catch::Contains("data.weights") && Catch::Contains("got 2"));
  config = valid_config();
  config.data.seq_len = 2048;
  CHECK_THAT(message_of(config), Catch::Contains("data.seq_len = 2048"));
  config = valid_config();
  config.train.schedule.kind = ScheduleKind::kWsd;
  config.train.schedule.decay_steps = 950;
  CHECK_THAT(message_of(config), Catch::Contains("decay_steps = 950"));
  config = valid_config();
  config.train.schedule.warmup_steps = 1001;
  CHECK_THAT(message_of(config), Catch::Contains("warmup_steps = 1001"));
  config = valid_config();
  config.model.training_policy = "top_k=33";
  CHECK_THAT(message_of(config), Catch::Contains("n_experts = 32"));
  config = valid_config();
  config.model.ffn.kind = FfnKind::kPartitioned;
  CHECK(message_of(config).empty());
  config.model.ffn.partition.layers = "0-2,7";
  CHECK(message_of(config).empty());
  for (const auto* layers : {"0-8", "3-2", "", "1,", ",1", "1-", "x", "1 ,2", "1;2", "-1"}) {
    INFO(layers);
    config.model.ffn.partition.layers = layers;
    CHECK_THAT(message_of(config), Catch::Contains("model.partition.layers"));
  }
  config.model.ffn.partition.layers = "all";
  config.model.ffn.partition.gates = RouterActivation::kSoftmax;
  CHECK_THAT(message_of(config), Catch::Contains("model.partition.ste"));
  config.model.ffn.partition.gates = RouterActivation::kSigmoid;
  config.model.ffn.d_ffn = 2047;
  CHECK_THAT(message_of(config), Catch::Contains("d_ffn = 2047"));
  config = valid_config();
  config.model.rope_scaling.kind = RopeScalingKind::kLlama3;
  config.model.rope_scaling.low_freq_factor = 4.0;
  CHECK_THAT(message_of(config), Catch::Contains("low_freq_factor = 4"));
}

TEST_CASE("RunConfig: keys that distributed.shard leaves without effect are refused",
          "[train][config]") {
  auto config = valid_config();
  config.distributed.shard = ShardLevel::kGradients;
  CHECK(message_of(config).empty());
  config.distributed.compress_gradients = true;
  CHECK_THAT(message_of(config), Catch::StartsWith("distributed.compress_gradients: "));
  config.distributed.compress_gradients = false;
  config.distributed.shard_optimizer = true;
  CHECK_THAT(message_of(config), Catch::StartsWith("distributed.shard_optimizer: "));
}

TEST_CASE("RunConfig: a config written as YAML or JSON reads back equal", "[train][config]") {
  auto config = valid_config();
  config.seed = 7;
  config.train.loss.moe_mi_weight = 0.1 + 0.2;
  config.train.schedule.kind = ScheduleKind::kWsd;
  config.data.train = {"a \"quoted\" path: #1", "b"};
  config.data.weights = {0.1 + 0.2, 1e-7};
  config.data.document_mask = true;
  const auto describe_config = [&](ConfigVisitor& visitor) { describe(visitor, config); };
  for (const auto& text : {config_to_yaml(describe_config), config_to_json(describe_config)}) {
    RunConfig read;
    const auto describe_read = [&](ConfigVisitor& visitor) { describe(visitor, read); };
    read_config_text(text, "text", {}, describe_read);
    CHECK(compare_configs(describe_config, describe_read).empty());
    CHECK(read.train.loss.moe_mi_weight == 0.1 + 0.2);
  }
}

TEST_CASE("training_plan: a selection of experts is dispatched sparsely, all experts are not",
          "[train][config]") {
  auto config = valid_config().model;
  for (const auto& policy :
       {training_plan(config).layer(0).moe, training_plan(config).layer(0).moa}) {
    CHECK(policy == RoutingPolicy::all());
  }
  config.training_policy = "top_k=2";
  const auto last = training_plan(config).layer(static_cast<size_t>(config.n_layers) - 1);
  CHECK(last.moe == RoutingPolicy::top_k(2).with(Execution::kSparse));
  CHECK(last.moa == RoutingPolicy::all());
}

TEST_CASE("training_plan: a straight-through estimator computes every expert", "[train][config]") {
  auto config = valid_config().model;
  config.training_policy = "threshold=0.5";
  config.ffn.kind = FfnKind::kPartitioned;
  CHECK(training_plan(config).layer(0).moe ==
        RoutingPolicy::threshold(0.5).with(Execution::kDense));
  config.ffn.partition.straight_through = false;
  CHECK(training_plan(config).layer(0).moe ==
        RoutingPolicy::threshold(0.5).with(Execution::kSparse));
}

TEST_CASE("configs/README.md: the table of keys equals the one the program prints",
          "[train][config]") {
  RunConfig config;
  const auto table = config_to_markdown([&](ConfigVisitor& visitor) { describe(visitor, config); });
  const auto readme = read_file(posix_io(), DSMOE_SOURCE_DIR "/configs/README.md", 1 << 20);
  INFO("put this table into configs/README.md:\n" << table);
  CHECK(readme.find(table) != std::string::npos);
}

}  // namespace
}  // namespace dsmoe
