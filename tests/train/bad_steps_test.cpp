// A NaN, an Inf or a spike in a step, put there by hooks: neither weights nor checkpoints see it.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "formats/hash.h"
#include "model/io/checkpoint_reader.h"
#include "train/finite.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

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

// Puts `value` into a step: into the loss of a micro-batch, or into one entry of one gradient.
TrainHooks put(float value, int64_t at_step, const std::string& parameter) {
  TrainHooks hooks;
  if (parameter.empty()) {
    hooks.on_loss = [=](int64_t step, at::Tensor& loss) {
      if (step == at_step) loss = loss * value;
    };
  } else {
    hooks.on_gradients = [=](int64_t step, const NamedTensors& parameters) {
      for (const auto& [name, tensor] : parameters) {
        if (step == at_step && name == parameter) tensor.grad()[0][0] = value;
      }
    };
  }
  return hooks;
}

// What a run without a fault ends with.
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
  struct Case {
    float value;
    std::string where;  // a parameter; empty: the loss
    int64_t at_step;    // the first, one that is saved, one between
  };
  const std::vector<Case> cases = {{kNan, "", 0},
                                   {kInf, "", 3},
                                   {-kInf, "", 5},
                                   {kNan, "embedding", 3},
                                   {-kInf, "embedding", 0},
                                   {kNan, down_proj, 5},
                                   {kInf, down_proj, 3}};
  const auto [value, where, at_step] = cases[static_cast<size_t>(GENERATE(range(0, 7)))];
  CAPTURE(value, where, at_step);
  const TemporaryDirectory directory;
  const auto config = short_run(directory);
  auto hooks = put(value, at_step, where);
  std::string after_last_step;
  hooks.on_step_end = [&](int64_t, const NamedTensors& parameters) {
    after_last_step = hash_of(parameters);
  };
  std::string message;
  try {
    Trainer(posix_io(), config, "none", hooks).run();
  } catch (const RunError& error) {
    message = error.what();
  }
  CHECK_THAT(message,
             Catch::Contains("step " + std::to_string(at_step + 1) + ": expected a finite loss"));
  CHECK_THAT(message, Catch::Contains("the weights are those of step " + std::to_string(at_step)));
  if (!where.empty()) CHECK_THAT(message, Catch::Contains("gradients of '" + where + "'"));
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
  // The process without the fault goes on from the last whole step, and comes to the same end.
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
  const auto hooks = put(std::numeric_limits<float>::denorm_min(), 3, "embedding");
  CHECK(Trainer(posix_io(), config, "none", hooks).run().last->skipped_steps == 0);
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
  auto hooks = put(value, 3, "embedding");
  std::vector<std::string> hashes;
  hooks.on_step_end = [&](int64_t, const NamedTensors& parameters) {
    hashes.push_back(hash_of(parameters));
  };
  const auto result = Trainer(posix_io(), config, "none", hooks).run();
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
  hooks.on_loss = {};
  hooks.on_gradients = {};
  CHECK(Trainer(posix_io(), config, "auto", hooks).run().last->skipped_steps == 1);
  CHECK(hashes.size() == 4);
  CHECK(hashes.back() == end);
}

TEST_CASE("Trainer: a spike is only reported where the config says so", "[train][guard]") {
  const TemporaryDirectory directory;
  auto config = short_run(directory);
  config.train.guard.spike_window = 2;
  config.train.guard.spike_z = 1000;
  config.train.guard.on_spike = OnSpike::kReport;
  CHECK(Trainer(posix_io(), config, "none", put(1e10f, 3, "embedding")).run().last->skipped_steps ==
        0);
  const auto lines = read_file(posix_io(), config.run_dir + "/metrics.jsonl", 1 << 20);
  CHECK_THAT(lines, Catch::Contains("\"event\":\"spike\""));
}

TEST_CASE("Trainer: a NaN in the weights is refused by the save and named by the next step",
          "[train][guard]") {
  const TemporaryDirectory directory;
  const auto config = short_run(directory);
  TrainHooks hooks;
  hooks.on_step_end = [](int64_t step, const NamedTensors& parameters) {
    for (const auto& [name, tensor] : parameters) {
      if (step == 4 && name == "blocks_0.moe.experts.up_proj.weight") {
        tensor.detach()[5 * 2][0] = kNan;
      }
    }
  };
  CHECK_THROWS_WITH(Trainer(posix_io(), config, "none", hooks).run(),
                    Catch::Contains("first in the weights of 'blocks_0.moe.experts.up_proj.weight' "
                                    "(layer 0, moe expert 2)"));
  CHECK(find_checkpoint(posix_io(), config.run_dir).manifest.step == 4);
}

}  // namespace
}  // namespace dsmoe
