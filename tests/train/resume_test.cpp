#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/error.h"
#include "data/sequence_packer.h"
#include "formats/checkpoint_manifest.h"
#include "train/tiny_run.h"
#include "train/train_state.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr const char* kState = "state-rank-00000.json";
constexpr const char* kModel = "model-00001-of-00001.safetensors";
constexpr const char* kOptimizer = "optimizer-rank-00000.safetensors";

std::string checkpoint_of(const std::string& run, int64_t step) {
  return run + "/checkpoints/step-000000" + std::to_string(step);
}

/// Values that must be equal, bit for bit, between a run and the same run resumed.
struct Outcome {
  std::vector<std::string> losses;  // loss and gradient norm of the steps 21 to 40
  std::string model_hash;
  std::string optimizer_hash;
  std::string state;
  bool operator==(const Outcome&) const = default;
};

Outcome outcome_of(const std::string& run) {
  Outcome outcome;
  std::istringstream lines(read_file(posix_io(), run + "/metrics.jsonl", 1 << 20));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json["step"] <= 20) continue;
    outcome.losses.push_back(
        nlohmann::json({json["step"], json["loss"], json["lm_loss"], json["gradient_norm"]})
            .dump());
  }
  const auto last = checkpoint_of(run, 40);
  outcome.model_hash = describe_file(posix_io(), last, kModel).hash;
  outcome.optimizer_hash = describe_file(posix_io(), last, kOptimizer).hash;
  outcome.state = read_file(posix_io(), last + "/" + kState, 1 << 20);
  return outcome;
}

// Writes a file of a checkpoint anew and makes the manifest agree.
void replace_in_checkpoint(const std::string& directory,
                           const std::string& name,
                           const std::function<void(FileRecord&)>& write) {
  auto& io = posix_io();
  auto manifest = read_manifest(io, directory);
  for (auto& file : manifest.files) {
    if (file.name == name) write(file);
  }
  write_file(io, directory + "/manifest.json", manifest_to_json(manifest));
}

void change_state(const std::string& directory, const std::function<void(TrainState&)>& change) {
  replace_in_checkpoint(directory, kState, [&](FileRecord& record) {
    const auto path = directory + "/" + kState;
    auto state = parse_state(read_file(posix_io(), path, 1 << 20), path);
    change(state);
    write_file(posix_io(), path, state_to_json(state));
    record = describe_file(posix_io(), directory, kState);
  });
}

// Sets every optimizer tensor with a name that ends in `suffix` to zero.
void clear_optimizer(const std::string& directory, const std::string& suffix) {
  replace_in_checkpoint(directory, kOptimizer, [&](FileRecord& record) {
    const auto path = directory + "/" + kOptimizer;
    std::vector<std::vector<char>> values;
    std::vector<TensorBytes> tensors;
    std::map<std::string, std::string> metadata;
    {
      const SafetensorsFile file(posix_io(), path);
      metadata = file.metadata();
      values.reserve(file.tensors().size());
      for (const auto& entry : file.tensors()) {
        auto& bytes = values.emplace_back(entry.end - entry.begin);
        file.read(entry, bytes.data());
        if (entry.name.ends_with(suffix)) std::memset(bytes.data(), 0, bytes.size());
        tensors.push_back({entry.name, entry.dtype, entry.shape, bytes.data()});
      }
    }
    const auto written = write_safetensors(posix_io(), path, metadata, tensors);
    record = {kOptimizer, written.size_bytes, written.hash, written.tensors, written.checksums};
  });
}

// The first run of 40 steps, made once.
struct Golden {
  TemporaryDirectory directory;
  std::string shards = make_tiny_shards(directory, 700);  // 43 sequences: step 20 is in epoch 2
  std::string run = directory.file("golden");
  Outcome outcome;
  Golden() {
    Trainer(posix_io(), tiny_run(run, shards), "auto").run();
    outcome = outcome_of(run);
  }
};

const Golden& golden() {
  static const Golden made;
  return made;
}

// Copies step 20 of the golden run to another directory, changes it, and resumes to step 40.
Outcome resume_after(const std::function<void(const std::string& checkpoint)>& change,
                     const std::function<void(RunConfig&)>& configure = {}) {
  const TemporaryDirectory directory;
  const auto run = directory.file("resumed");
  fs::create_directories(run + "/checkpoints");
  fs::copy(checkpoint_of(golden().run, 20), checkpoint_of(run, 20));
  change(checkpoint_of(run, 20));
  auto config = tiny_run(run, golden().shards);
  if (configure) configure(config);
  Trainer(posix_io(), config, "auto").run();
  return outcome_of(run);
}

void nothing(const std::string&) {}

TEST_CASE("Trainer: 20 steps, a resume and 20 steps are 40 steps, bit for bit", "[train][resume]") {
  REQUIRE(golden().outcome.losses.size() == 20);
  const auto resumed = resume_after(nothing);
  CHECK(resumed.losses == golden().outcome.losses);
  CHECK(resumed == golden().outcome);
  SECTION("also with prefetch off, and activations checkpointed") {
    CHECK(resume_after(nothing, [](RunConfig& config) { config.data.prefetch = 0; }) ==
          golden().outcome);
    CHECK(resume_after(nothing, [](RunConfig& config) {
            config.train.checkpoint_activations = Recompute::kBlock;
          }) == golden().outcome);
  }
}

TEST_CASE("Trainer: the run of the resume test is in its second epoch and uses dropout",
          "[train][resume]") {
  const auto state = parse_state(golden().outcome.state, "state");
  CHECK(state.position == 160);
  const TokenDataset dataset(golden().shards);
  CHECK(SequencePacker(dataset.n_tokens(), 16, 0).n_sequences() < 80);  // at step 20
  CHECK(tiny_run("", "").model.dropout > 0);
}

TEST_CASE("Trainer: a resume without any one part of the state gives other losses",
          "[train][resume]") {
  const auto expected = golden().outcome;
  SECTION("random state") {
    const auto other = resume_after([](const std::string& checkpoint) {
      change_state(checkpoint, [](TrainState& state) {
        state.random_state = parse_state(golden().outcome.state, "state").random_state;
      });
    });
    CHECK(other.losses != expected.losses);
  }
  SECTION("data cursor") {
    const auto other = resume_after([](const std::string& checkpoint) {
      change_state(checkpoint, [](TrainState& state) { state.position += 2; });
    });
    CHECK(other.losses != expected.losses);
  }
  SECTION("epoch") {
    const auto other = resume_after([](const std::string& checkpoint) {
      change_state(checkpoint, [](TrainState& state) {
        const TokenDataset dataset(golden().shards);
        state.position %= SequencePacker(dataset.n_tokens(), 16, 0).n_sequences();
      });
    });
    CHECK(other.losses != expected.losses);
  }
  SECTION("spike guard's history") {
    const auto other = resume_after([](const std::string& checkpoint) {
      change_state(checkpoint, [](TrainState& state) { state.guard = {}; });
    });
    CHECK(other.losses == expected.losses);
    CHECK(other.state != expected.state);
  }
  SECTION("optimizer step") {
    const auto other =
        resume_after([](const std::string& checkpoint) { clear_optimizer(checkpoint, ".step"); });
    CHECK(other.losses != expected.losses);
  }
  SECTION("optimizer moments") {
    const auto other = resume_after(
        [](const std::string& checkpoint) { clear_optimizer(checkpoint, ".exp_avg"); });
    CHECK(other.losses != expected.losses);
  }
  SECTION("schedule") {
    const auto other = resume_after(nothing, [](RunConfig& config) {
      config.train.schedule.final_ratio = 0.11;  // one lost digit of the decay
    });
    CHECK(other.losses != expected.losses);
    CHECK(other.losses[0] == expected.losses[0]);  // only the update differs, not the first loss
  }
  SECTION("step") {
    const auto other = resume_after([](const std::string& checkpoint) {
      change_state(checkpoint, [](TrainState& state) { state.step = 19; });
    });
    CHECK(other.losses != expected.losses);
  }
}

TEST_CASE("Trainer: a key that fixes the run is refused on resume", "[train][resume]") {
  CHECK_THROWS_WITH(resume_after(nothing, [](RunConfig& config) { config.train.batch_size = 4; }),
                    Catch::Contains("train.batch_size"));
  CHECK_THROWS_WITH(resume_after(nothing, [](RunConfig& config) { config.model.d_model = 16; }),
                    Catch::Contains("model.d_model"));
}

TEST_CASE("Trainer: each applied key of the optimizer takes effect on resume", "[train][resume]") {
  const std::function<void(RunConfig&)> changes[] = {
      [](RunConfig& config) { config.train.optimizer.beta1 = 0.5; },
      [](RunConfig& config) { config.train.optimizer.beta2 = 0.9; },
      [](RunConfig& config) { config.train.optimizer.eps = 1e-3; },
      [](RunConfig& config) { config.train.optimizer.weight_decay = 1.0; },
      [](RunConfig& config) { config.train.optimizer.clip_norm = 0.1; },
      [](RunConfig& config) { config.train.schedule.peak = 2e-2; },
      [](RunConfig& config) { config.train.loss.moe_mi_weight = 0.1; }};
  for (const auto& change : changes) {
    const auto other = resume_after(nothing, change);
    CHECK(other.losses != golden().outcome.losses);
  }
}

TEST_CASE("Trainer: other training tokens are refused on resume", "[train][resume]") {
  const TemporaryDirectory directory;
  const auto shards = make_tiny_shards(directory, 1600);
  CHECK_THROWS_WITH(resume_after(nothing, [&](RunConfig& config) { config.data.train = {shards}; }),
                    Catch::Contains("other tokens"));
}

TEST_CASE("Trainer: a damaged newest checkpoint falls back to the one before", "[train][resume]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  fs::create_directories(run + "/checkpoints");
  fs::copy(checkpoint_of(golden().run, 20), checkpoint_of(run, 20));
  fs::copy(checkpoint_of(golden().run, 40), checkpoint_of(run, 40));
  fs::resize_file(checkpoint_of(run, 40) + "/" + kModel, 1000);
  const auto config = tiny_run(run, golden().shards);
  SECTION("auto resumes from step 20 and logs the reason") {
    fs::remove_all(checkpoint_of(run, 40));
    fs::create_directories(checkpoint_of(run, 40));  // no manifest: not a checkpoint
    CHECK_THROWS_AS(Trainer(posix_io(), config, checkpoint_of(run, 40)), Error);
    fs::remove_all(checkpoint_of(run, 40));
    Trainer(posix_io(), config, "auto").run();
    CHECK(outcome_of(run) == golden().outcome);
  }
  SECTION("a path never falls back") {
    CHECK_THROWS_WITH(Trainer(posix_io(), config, checkpoint_of(run, 40)), Catch::Contains(kModel));
  }
  SECTION("later checkpoints are set aside and saved again") {
    Trainer(posix_io(), config, "auto").run();
    CHECK(fs::exists(run + "/checkpoints/.damaged-step-00000040"));
    CHECK(outcome_of(run) == golden().outcome);
  }
  SECTION("a path to an earlier step is refused while a later one exists") {
    CHECK_THROWS_WITH(Trainer(posix_io(), config, checkpoint_of(run, 20)),
                      Catch::Contains("the later step-00000040"));
  }
  SECTION("none refuses a directory that holds a run") {
    CHECK_THROWS_WITH(Trainer(posix_io(), config, "none"), Catch::Contains("--resume auto"));
  }
}

TEST_CASE(
    "Trainer: a finished run that is started again reports its last numbers and stays as it is",
    "[train][resume]") {
  const TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), golden().shards);
  config.train.steps = 15;
  config.train.log_every = 2;
  config.train.save_every = 12;
  const auto first = Trainer(posix_io(), config, "none").run();
  REQUIRE(first.last);
  CHECK(first.step == 15);
  CHECK(first.last->step == 15);
  const auto lines = config.run_dir + "/metrics.jsonl";
  const auto written = read_file(posix_io(), lines, 1 << 20);
  const auto again = Trainer(posix_io(), config, "auto").run();
  CHECK(again.step == 15);
  CHECK(again.tokens == first.tokens);
  REQUIRE(again.last);
  CHECK(again.last->loss == first.last->loss);
  CHECK((again.last->loss_terms == first.last->loss_terms));
  CHECK(again.last->gradient_norm == first.last->gradient_norm);
  CHECK(again.last->tokens_per_second == first.last->tokens_per_second);
  CHECK(read_file(posix_io(), lines, 1 << 20) == written);
  // A step without a line has no numbers, rather than those of another.
  config.train.steps = 12;
  fs::remove_all(checkpoint_of(config.run_dir, 15));
  write_file(posix_io(),
             lines,
             "{\"step\": 10, \"loss\": 1.0}\n{\"step\": 12, \"validation_loss\": 1.0}\n");
  const auto third = Trainer(posix_io(), config, "auto").run();
  CHECK(third.step == 12);
  CHECK_FALSE(third.last);
}

TEST_CASE("Trainer: a second process in the run directory is refused", "[train][resume]") {
  const TemporaryDirectory directory;
  const auto config = tiny_run(directory.file("run"), golden().shards);
  const Trainer first(posix_io(), config, "auto");
  CHECK_THROWS_WITH(Trainer(posix_io(), config, "auto"), Catch::Contains("in use by process"));
}

}  // namespace
}  // namespace dsmoe
