// Checkpoints that earlier versions wrote keep loading. tests/golden/checkpoint-v1 was written at
// step 2 of 4 by `dsmoe train` of commit ebf82c8, with a state without guards; it is never
// written again.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/config_reader.h"
#include "common/error.h"
#include "eval/perplexity.h"
#include "model/io/checkpoint_reader.h"
#include "support/temporary_directory.h"
#include "train/checkpoint_store.h"
#include "train/optimizer.h"
#include "train/tiny_run.h"
#include "train/train_state.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

const std::string kGolden = DSMOE_SOURCE_DIR "/tests/golden/checkpoint-v1";

// Of the golden model over some_bytes(), by `dsmoe eval` of the program that wrote it.
constexpr double kNats = 5.558913142681122;

// Losses of steps 3 and 4 of that program's own run, and its gradient norms.
constexpr double kLosses[] = {5.494781970977783, 5.464138984680176};
constexpr double kNorms[] = {0.6654462665665758, 0.9069734099253257};

EvalText some_bytes() {
  EvalText text;
  auto& sequence = text.sequences.emplace_back(1, 256);  // BOS
  for (int32_t i = 0; i < 200; ++i) sequence.push_back(i * i % 95 + 32);
  text.n_bytes = 200;
  return text;
}

TEST_CASE("golden: a checkpoint of format version 1 is read, every part of it", "[train][golden]") {
  const auto found = find_checkpoint(posix_io(), kGolden);
  CHECK(found.manifest.format_version == 1);
  CHECK(found.manifest.step == 2);
  auto model = load_model(posix_io(), found);
  const auto measured = evaluate_perplexity(model, some_bytes(), {});
  CHECK(measured.tokens_scored == 200);
  CHECK(measured.nats_per_token() == Approx(kNats).epsilon(1e-5));
  const Optimizer optimizer(named_parameters(*model), {});
  load_tensors(posix_io(), found, "optimizer-", optimizer.named_state());
  const auto path = kGolden + "/state-rank-00000.json";
  const auto state = parse_state(read_file(posix_io(), path, 1 << 20), path);
  CHECK(state.step == 2);
  CHECK(state.position == 8);
  CHECK(state.random_state.size() > 5000);
}

TEST_CASE(
    "golden: a run resumes from a checkpoint of format version 1 with the losses of its writer",
    "[train][golden]") {
  const TemporaryDirectory directory;
  RunConfig config;
  read_config_file(
      kGolden + "/config.json", {}, [&](ConfigVisitor& visitor) { describe(visitor, config); });
  config.run_dir = directory.file("run");
  config.data.train = {make_tiny_shards(directory)};
  const auto last = Trainer(posix_io(), config, kGolden).run().last;
  REQUIRE(last);
  CHECK(last->step == 4);
  std::istringstream lines(read_file(posix_io(), config.run_dir + "/metrics.jsonl", 1 << 20));
  for (size_t i = 0; i < 2; ++i) {
    std::string line;
    REQUIRE(std::getline(lines, line));
    const auto step = nlohmann::json::parse(line);
    CHECK(step["step"] == 3 + i);
    CHECK(step["loss"].get<double>() == Approx(kLosses[i]).epsilon(1e-5));
    CHECK(step["gradient_norm"].get<double>() == Approx(kNorms[i]).epsilon(1e-5));
  }
}

TEST_CASE("golden: a newer format version is refused by its number", "[train][golden]") {
  auto manifest = read_manifest(posix_io(), kGolden);
  manifest.format_version = 2;
  CHECK_THROWS_WITH(parse_manifest(manifest_to_json(manifest), "m"),
                    Catch::Contains("format version 2, this program reads up to 1"));
}

TEST_CASE("perplexity is the same number before a save and after a load", "[train][golden]") {
  const auto found = find_checkpoint(posix_io(), kGolden);
  auto model = load_model(posix_io(), found);
  const TemporaryDirectory directory;
  CheckpointContents contents;
  contents.manifest.run_id = "0";
  contents.manifest.step = 1;
  contents.model = named_tensors(*model);
  contents.files = {{"config.json", read_file(posix_io(), kGolden + "/config.json", 1 << 20)}};
  CheckpointStore(posix_io(), directory.file("run"), {}).save(contents);
  auto loaded = load_model(posix_io(), find_checkpoint(posix_io(), directory.file("run")));
  for (const int64_t batch : {1, 4, 32}) {
    CHECK(evaluate_perplexity(loaded, some_bytes(), {.batch = batch}).nats_total ==
          evaluate_perplexity(model, some_bytes(), {.batch = batch}).nats_total);
  }
}

}  // namespace
}  // namespace dsmoe
