// A NaN, an Inf or a spike in a step reaches neither weights nor checkpoints.
#include <ATen/ops/scalar_tensor.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/error.h"
#include "formats/hash.h"
#include "model/io/checkpoint_reader.h"
#include "train/bad_step_guard.h"
#include "train/finite.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kMax = std::numeric_limits<float>::max();

const std::string& shards() {
  static const TemporaryDirectory directory;
  static const std::string made = make_tiny_shards(directory);
  return made;
}

// 8 steps, saved after the 4th and the 8th.
RunConfig short_run(const TemporaryDirectory& directory) {
  auto config = tiny_run(directory.file("run"), shards());
  config.train.steps = 8;
  config.train.save_every = 4;
  return config;
}

std::string hash_of(const NamedTensors& tensors) {
  StreamHash hash;
  for (const auto& [name, tensor] : tensors) {
    hash.add(tensor.const_data_ptr(), tensor.nbytes());
  }
  return hash.hash128();
}

at::Tensor parameter_of(const Trainer& trainer, const std::string& name) {
  for (const auto& [known, tensor] : named_parameters(*trainer.model())) {
    if (known == name) return tensor;
  }
  FAIL("no parameter " << name);
  return {};
}

// The fault of a step, counted from 0: a value in one entry of a parameter's gradient, or weights
// of the last norm so large that the logits overflow.
struct BadValue {
  float value = 0;
  std::string parameter;  // empty: the last norm
  int64_t step = 0;
};

// Trains to the end. `after_step` gets the hash of the weights.
TrainResult train_with(Trainer& trainer,
                       const BadValue& fault,
                       std::vector<std::string>* after_step = nullptr) {
  int64_t step = 0;
  if (!fault.parameter.empty()) {
    parameter_of(trainer, fault.parameter).register_hook([&](const at::Tensor& gradient) {
      if (step != fault.step) return gradient;
      auto changed = gradient.clone();
      changed[0][0] = fault.value;
      return changed;
    });
  }
  for (;; ++step) {
    if (fault.parameter.empty() && step == fault.step) {
      parameter_of(trainer, "final_norm.weight").detach().fill_(fault.value);
    }
    if (!trainer.step()) return trainer.finish();
    if (after_step != nullptr) after_step->push_back(hash_of(named_parameters(*trainer.model())));
  }
}

// The result of a run without a fault.
const CheckpointManifest& undisturbed() {
  static const CheckpointManifest manifest = [] {
    const TemporaryDirectory directory;
    const auto config = short_run(directory);
    Trainer(posix_io(), config, "none").run();
    return find_checkpoint(posix_io(), config.run_dir).manifest;
  }();
  return manifest;
}

nlohmann::json read_report(const std::string& run, int64_t step) {
  const auto path = run + "/bad_steps/step-0000000" + std::to_string(step) + ".json";
  return nlohmann::json::parse(read_file(posix_io(), path, 1 << 20));
}

TEST_CASE("Trainer: a non-finite loss or gradient stops the run with the weights as before",
          "[train][guard]") {
  const std::string down_proj = "blocks_1.moe.experts.down_proj.weight";
  // The first step, one that is saved, one between.
  const std::vector<BadValue> faults = {{kMax, "", 0},
                                        {kMax, "", 3},
                                        {-kMax, "", 5},
                                        {kNan, "embedding", 3},
                                        {-kInf, "embedding", 0},
                                        {kNan, down_proj, 5},
                                        {kInf, down_proj, 3}};
  const auto fault = faults[static_cast<size_t>(GENERATE(range(0, 7)))];
  const auto& [value, where, at_step] = fault;
  CAPTURE(value, where, at_step);
  const TemporaryDirectory directory;
  const auto config = short_run(directory);
  std::string message;
  try {
    Trainer trainer(posix_io(), config, "none");
    train_with(trainer, fault);
  } catch (const RunError& error) {
    message = error.what();
  }
  CHECK_THAT(message,
             Catch::Contains("step " + std::to_string(at_step + 1) + ": expected a finite loss"));
  CHECK_THAT(message, Catch::Contains("the weights are those of step " + std::to_string(at_step)));
  CHECK_THAT(message,
             Catch::Contains(where.empty() ? "first in the forward pass"
                                           : "gradients of '" + where + "'"));
  if (where.find("moe") != std::string::npos)
    CHECK_THAT(message, Catch::Contains("layer 1, moe expert 0"));
  const auto report = read_report(config.run_dir, at_step + 1);
  REQUIRE(report["sequences"].size() == 4);
  for (size_t i = 0; i < 4; ++i) {
    const auto& sequence = report["sequences"][i];
    CHECK(sequence["position"] == at_step * 4 + static_cast<int64_t>(i));
    CHECK(sequence["corpus"] == config.data.train[0]);
    CHECK(sequence["documents"] == nlohmann::json({0, 0}));
  }
  const auto saved = find_newest_checkpoint(posix_io(), config.run_dir);
  REQUIRE(saved.has_value() == (at_step > 3));
  // The process without the fault resumes from the last whole step and gives the same result.
  Trainer(posix_io(), config, "auto").run();
  const auto end = find_checkpoint(posix_io(), config.run_dir).manifest;
  const auto& expected = undisturbed();
  for (size_t i = 0; i < end.files.size(); ++i) {
    if (end.files[i].name == "model-00001-of-00001.safetensors") {
      CHECK(end.files[i].checksums == expected.files[i].checksums);
    }
  }
}

TEST_CASE("Trainer: a denormal gradient is no reason to stop", "[train][guard]") {
  const TemporaryDirectory directory;
  const auto config = short_run(directory);
  Trainer trainer(posix_io(), config, "none");
  const float value = std::numeric_limits<float>::denorm_min();
  CHECK(train_with(trainer, {value, "embedding", 3}).last->skipped_steps == 0);
}

TEST_CASE("Trainer: a step that is skipped changes neither weights nor moments, and is counted",
          "[train][guard]") {
  const bool is_spike = GENERATE(false, true);
  const float value = is_spike ? 1e10f : kNan;
  CAPTURE(value);
  const TemporaryDirectory directory;
  auto config = short_run(directory);
  config.train.guard.on_non_finite = OnNonFinite::kSkip;
  config.train.guard.spike_window = 2;
  config.train.guard.spike_z = 1000;
  std::vector<std::string> hashes;
  std::optional<Trainer> trainer;
  trainer.emplace(posix_io(), config, "none");
  const auto result = train_with(*trainer, {value, "embedding", 3}, &hashes);
  REQUIRE(hashes.size() == 8);
  CHECK(hashes[3] == hashes[2]);
  CHECK(hashes[4] != hashes[3]);
  CHECK(result.last->step == 8);
  CHECK(result.last->skipped_steps == 1);
  CHECK(read_report(config.run_dir, 4)["step"] == 4);
  // The step of the moments counts updates: one less than the steps of the run.
  const auto found = find_checkpoint(posix_io(), config.run_dir);
  const SafetensorsFile file(posix_io(), found.directory + "/optimizer-rank-00000.safetensors");
  float updates = 0;
  file.read(*file.find("embedding.step"), &updates);
  CHECK(updates == 7);
  // A resume from the skipped step repeats what followed.
  const auto end = hashes.back();
  fs::remove_all(config.run_dir + "/checkpoints/step-00000008");
  hashes.clear();
  trainer.reset();
  trainer.emplace(posix_io(), config, "auto");
  CHECK(train_with(*trainer, {value, "embedding", -1}, &hashes).last->skipped_steps == 1);
  CHECK(hashes.size() == 4);
  CHECK(hashes.back() == end);
}

TEST_CASE("Trainer: a spike is only reported with on_spike = report", "[train][guard]") {
  const TemporaryDirectory directory;
  auto config = short_run(directory);
  config.train.guard.spike_window = 2;
  config.train.guard.spike_z = 1000;
  config.train.guard.on_spike = OnSpike::kReport;
  Trainer trainer(posix_io(), config, "none");
  CHECK(train_with(trainer, {1e10f, "embedding", 3}).last->skipped_steps == 0);
  const auto lines = read_file(posix_io(), config.run_dir + "/metrics.jsonl", 1 << 20);
  CHECK_THAT(lines, Catch::Contains("\"event\":\"spike\""));
}

TEST_CASE("Trainer: a NaN in the weights is refused by the save and named by the next step",
          "[train][guard]") {
  const TemporaryDirectory directory;
  const auto config = short_run(directory);
  Trainer trainer(posix_io(), config, "none");
  for (int64_t step = 0; step < 5; ++step) REQUIRE(trainer.step());
  parameter_of(trainer, "blocks_0.moe.experts.up_proj.weight").detach()[5 * 2][0] = kNan;
  CHECK_THROWS_WITH(trainer.step(),
                    Catch::Contains("first in the weights of 'blocks_0.moe.experts.up_proj.weight' "
                                    "(layer 0, moe expert 2)"));
  CHECK(find_checkpoint(posix_io(), config.run_dir).manifest.step == 4);
}

// A guard and all that it needs, with the batches of one step.
struct GuardBench {
  TemporaryDirectory directory;
  RunConfig config = short_run(directory);
  TrainingData dataset{config.data.train, {}, ""};
  Transformer model{config.model};
  RankGroup ranks;
  DataLoader loader{dataset.sources(), {.seq_len = 16, .batch_size = 2, .prefetch = 0}};
  std::vector<Batch> batches{loader.next(), loader.next()};
  std::optional<BadStepGuard> guard;

  explicit GuardBench(const GuardConfig& guard_config) {
    config.train.guard = guard_config;
    init_weights(model, 1);
    guard.emplace(TrainContext{posix_io(), config, dataset, model, ranks}, loader);
  }
  StepVerdict judge(float loss, double norm) {
    const StepResult result{.loss = {.total = at::scalar_tensor(loss), .values = {}},
                            .gradient_norm = norm};
    return guard->judge(4, result, batches);
  }
};

TEST_CASE("BadStepGuard: a non-finite loss of finite tensors is refused and reported",
          "[train][guard]") {
  const float value = GENERATE(as<float>{}, kNan, kInf, -kInf);
  GuardBench bench({});
  CHECK_THROWS_WITH(
      bench.judge(value, 1.0),
      Catch::Contains("step 4: expected a finite loss") &&
          Catch::Contains("weights, activations and gradients themselves are finite") &&
          Catch::Contains("training sequences 0 to 3; the weights are those of step 3"));
  CHECK_THROWS_AS(bench.judge(1.0f, value), RunError);
  CHECK(read_report(bench.config.run_dir, 4)["sequences"].size() == 4);
}

TEST_CASE("BadStepGuard: a good step is applied, a skipped one counted up to max_skips",
          "[train][guard]") {
  GuardBench bench({.on_non_finite = OnNonFinite::kSkip, .max_skips = 2});
  const auto good = bench.judge(2.0f, 1.0);
  CHECK(good.is_applied);
  CHECK(good.event.empty());
  const auto skipped = bench.judge(kNan, 1.0);
  CHECK_FALSE(skipped.is_applied);
  CHECK(skipped.event == "skipped");
  CHECK_THAT(skipped.reason, Catch::Contains("expected a finite loss"));
  CHECK_NOTHROW(bench.guard->check_skips());
  CHECK(bench.guard->history().skipped_steps == 1);
  bench.judge(kNan, 1.0);
  CHECK_THROWS_WITH(bench.guard->check_skips(), Catch::Contains("2 steps in a row were skipped"));
}

}  // namespace
}  // namespace dsmoe
