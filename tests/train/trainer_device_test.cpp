// A model on another device than the CPU: the references of our kernels, batches, random state and
// checkpoints, by a device that computes on the CPU. Nothing here shows that CUDA works.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <c10/core/DeviceGuard.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/fake_backend.h"
#include "support/fake_device.h"
#include "support/rank_threads.h"
#include "support/test_device.h"
#include "train/losses.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

const std::string& shards() {
  static const TemporaryDirectory directory;
  static const std::string made = make_tiny_shards(directory, 700);
  return made;
}

RunConfig device_run(const std::string& run) {
  auto config = tiny_run(run, shards());
  config.train.steps = 6;
  config.train.save_every = 3;
  config.train.schedule.kind = ScheduleKind::kConstant;  // equal in runs of other lengths
  config.train.loss.mi_scope = MiScope::kGlobal;
  config.data.validation = shards();
  config.train.validate_every = 6;
  config.model.dropout = 0.0;
  return config;
}

// What a run logged, training steps and validations apart.
struct Logged {
  std::vector<nlohmann::json> steps, validations;
};

Logged logged_by(const std::string& run) {
  Logged logged;
  std::istringstream text(read_file(posix_io(), run + "/metrics.jsonl", 1 << 20));
  for (std::string line; std::getline(text, line);) {
    auto json = nlohmann::json::parse(line);
    if (json.contains("validation_loss")) logged.validations.push_back(json);
    if (json.contains("gradient_norm")) logged.steps.push_back(json);
  }
  return logged;
}

void train(const RunConfig& config,
           at::Device device,
           std::shared_ptr<RankGroup> ranks = std::make_shared<RankGroup>()) {
  Trainer(posix_io(), config, "auto", device, std::move(ranks)).run();
}

// Losses and gradient norms of every step of two runs, and their last validation.
void check_close(const std::string& run, const std::string& expected_run) {
  const auto logged = logged_by(run);
  const auto expected = logged_by(expected_run);
  const auto check = [](const auto& line, const auto& other, const char* key, double epsilon) {
    CAPTURE(key, line["step"]);
    CHECK(line[key].template get<double>() ==
          Approx(other[key].template get<double>()).epsilon(epsilon).margin(1e-6));
  };
  REQUIRE(logged.steps.size() == expected.steps.size());
  for (size_t i = 0; i < logged.steps.size(); ++i) {
    for (const auto* key : {"loss", "lm_loss", "moe_mi", "moa_mi"}) {
      check(logged.steps[i], expected.steps[i], key, 1e-4);
    }
    check(logged.steps[i], expected.steps[i], "gradient_norm", 1e-2);
  }
  check(logged.validations.back(), expected.validations.back(), "validation_loss", 1e-4);
}

TEST_CASE("Trainer: a model on another device trains as on the CPU", "[train][device]") {
  const auto norm = GENERATE(NormKind::kRmsNorm, NormKind::kLayerNorm);
  const auto selection = GENERATE("all", "top_k=2");
  const bool documents = GENERATE(false, true);
  const TemporaryDirectory directory;
  auto config = device_run(directory.file("cpu"));
  config.model.norm = norm;
  config.model.training_policy = selection;
  config.data.document_mask = documents;
  train(config, at::kCPU);
  config.run_dir = directory.file("fake");
  train(config, fake_device());
  check_close(directory.file("fake"), directory.file("cpu"));
}

TEST_CASE("Trainer: a device with kernels trains as the CPU", "[train][device_kernels]") {
  const auto norm = GENERATE(NormKind::kRmsNorm, NormKind::kLayerNorm);
  const auto selection = GENERATE("all", "top_k=2", "moe:top_k=2;moa:top_k=1");
  const TemporaryDirectory directory;
  auto config = device_run(directory.file("cpu"));
  config.model.norm = norm;
  config.model.training_policy = selection;
  train(config, at::kCPU);
  config.run_dir = directory.file("device");
  train(config, test_device());
  check_close(directory.file("device"), directory.file("cpu"));
}

TEST_CASE("Trainer: forward pass, loss and backward pass run without a host sync",
          "[train][device_kernels]") {
  const auto execution = GENERATE(Execution::kDense, Execution::kSparse);
  CAPTURE(execution);
  auto config = device_run("unused").model;
  config.vocab_size = 257;
  config.d_model = 16;  // multiples of 16 bytes, as sparse products on a device require
  config.ffn.d_expert = 8;
  config.training_policy = execution == Execution::kSparse ? "moe:top_k=2;moa:top_k=2" : "all";
  Transformer model(config);
  init_weights(model, 1);
  model->to(test_device());
  model->train();
  const auto tokens = (at::arange(24, at::kLong) * 5).view({2, 12}).to(test_device());
  const auto plan = training_plan(config).with(execution);
  const ForwardOptions options{.compute_dtype = at::kBFloat16, .logits = false};
  model->forward(tokens, plan, options);  // copies tables to the device once
  const ForbidWaits forbidden;
  const auto output = model->forward(tokens, plan, options);
  const auto loss =
      compute_loss(output, tokens, {.moe_mi_weight = 0.1, .moa_mi_weight = 0.1}, 1, {});
  loss.total.backward();
  CHECK(model->parameters().back().grad().defined());
}

TEST_CASE("Trainer: a run on another device resumes to the same bits, dropout included",
          "[train][device]") {
  const TemporaryDirectory directory;
  auto config = device_run(directory.file("whole"));
  config.model.dropout = 0.1;
  config.train.checkpoint_activations = Recompute::kBlock;
  train(config, fake_device());
  config.run_dir = directory.file("halves");
  config.train.steps = 3;
  train(config, fake_device());
  config.train.steps = 6;
  train(config, fake_device());
  const auto whole = logged_by(directory.file("whole"));
  const auto halves = logged_by(directory.file("halves"));
  REQUIRE(whole.steps.size() == 6);
  REQUIRE(halves.steps.size() == 6);
  for (size_t i = 0; i < 6; ++i) CHECK(whole.steps[i]["loss"] == halves.steps[i]["loss"]);
  CHECK(whole.validations.back()["validation_loss"] ==
        halves.validations.back()["validation_loss"]);
}

TEST_CASE("Trainer: a checkpoint goes from one device to another", "[train][device]") {
  const TemporaryDirectory directory;
  auto config = device_run(directory.file("cpu"));
  train(config, at::kCPU);
  config.run_dir = directory.file("mixed");
  config.train.steps = 3;
  train(config, fake_device());
  config.train.steps = 6;
  train(config, at::kCPU);
  check_close(directory.file("mixed"), directory.file("cpu"));
}

// Two ranks as threads, on devices with collectives over `network`.
void train_on_two_ranks(const RunConfig& config, FakeNetwork& network) {
  run_ranks(2,
            [&](RankGroup& group) {
              const auto device = fake_device(static_cast<c10::DeviceIndex>(group.rank()));
              const c10::DeviceGuard selected(device);
              train(config, device, std::shared_ptr<RankGroup>(&group, [](RankGroup*) {}));
            },
            {.setup_timeout_seconds = 20,
             .step_timeout_seconds = 20,
             .accelerator = Accelerator{.device = fake_device().type(),
                                        .make_backend = network.make_backend()}});
}

TEST_CASE("Trainer: two ranks on another device average over its own backend", "[train][device]") {
  const bool shard_optimizer = GENERATE(false, true);
  const TemporaryDirectory directory;
  auto config = device_run(directory.file("cpu"));
  train(config, at::kCPU);
  config.run_dir = directory.file("ranks");
  config.distributed.shard_optimizer = shard_optimizer;
  config.distributed.check_every = 2;
  FakeNetwork network(2);
  train_on_two_ranks(config, network);
  check_close(directory.file("ranks"), directory.file("cpu"));
  // Gradients of every step and, where moments are shared out, the updated parameters.
  const auto log = network.log(1);
  CHECK(std::count_if(log.begin(), log.end(), [](const std::string& line) {
          return line.rfind("all-reduce", 0) == 0;
        }) >= config.train.steps);
  CHECK((std::count_if(log.begin(), log.end(), [](const std::string& line) {
           return line.rfind("all-gather", 0) == 0;
         }) >= config.train.steps) == shard_optimizer);
}

TEST_CASE("Trainer: ranks on another device take up the moments of a checkpoint",
          "[train][device]") {
  const bool shard_optimizer = GENERATE(false, true);
  const TemporaryDirectory directory;
  auto config = device_run(directory.file("cpu"));
  train(config, at::kCPU);
  config.run_dir = directory.file("ranks");
  config.distributed.shard_optimizer = shard_optimizer;
  for (const int64_t steps : {3, 6}) {
    config.train.steps = steps;
    FakeNetwork network(2);
    train_on_two_ranks(config, network);
  }
  check_close(directory.file("ranks"), directory.file("cpu"));
}

}  // namespace
}  // namespace dsmoe
