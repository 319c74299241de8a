#include <catch2/catch.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/error.h"
#include "support/megatron_pair.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

using Configure = std::function<void(RunConfig&)>;

// A Megatron pair of short documents of the byte tokenizer's ids.
std::string make_pair(const TemporaryDirectory& directory) {
  MegatronDocuments documents;
  for (int32_t i = 0; i < 90; ++i) {
    std::vector<int32_t> ids{256};
    for (int32_t j = 0; j < 3 + i % 11; ++j) ids.push_back('a' + (i * j) % 26);
    documents.push_back({ids});
  }
  const auto prefix = directory.file("pair");
  write_megatron_pair(prefix, make_megatron_pair(documents, 2));
  return prefix;
}

struct Corpora {
  TemporaryDirectory directory;
  std::string shards = make_tiny_shards(directory);
  std::string pair = make_pair(directory);

  RunConfig config(const std::string& name) const {
    auto config = tiny_run(directory.file(name), shards);
    config.data.train = {shards, pair};
    config.data.weights = {1, 3};
    config.data.document_mask = true;
    config.train.steps = 12;
    config.train.save_every = 6;
    config.train.loss.mi_scope = MiScope::kGlobal;
    return config;
  }

  // The losses of a run, as text; it may go on from where it was stopped.
  std::vector<std::string> train(const std::string& name, const Configure& configure = {}) const {
    auto run = config(name);
    if (configure) configure(run);
    Trainer(posix_io(), run, "auto").run();
    std::vector<std::string> losses;
    std::istringstream lines(read_file(posix_io(), run.run_dir + "/metrics.jsonl", 1 << 20));
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (json.contains("loss")) losses.push_back(json["loss"].dump());
    }
    return losses;
  }
};

}  // namespace

TEST_CASE("Trainer: a masked mixture of shards and a Megatron pair resumes bit for bit",
          "[train][data]") {
  const Corpora corpora;
  const auto whole = corpora.train("whole");
  REQUIRE(whole.size() == 12);
  // Two resumes in a row. The schedule is that of the whole run, so only the stop is moved.
  const auto constant = [](int64_t steps) {
    return [steps](RunConfig& config) {
      config.train.schedule.kind = ScheduleKind::kConstant;
      config.train.steps = steps;
    };
  };
  const auto once = corpora.train("once", constant(12));
  corpora.train("often", constant(5));
  corpora.train("often", constant(7));
  const auto resumed = corpora.train("often", constant(12));
  CHECK(resumed == once);

  const auto with = [&](const std::string& name, const Configure& configure) {
    return corpora.train(name, configure);
  };
  CHECK(with("unmasked", [](RunConfig& config) { config.data.document_mask = false; }) != whole);
  CHECK(with("weights", [](RunConfig& config) { config.data.weights = {3, 1}; }) != whole);
  CHECK(with("prefetch", [](RunConfig& config) { config.data.prefetch = 0; }) == whole);
  CHECK(with("recomputed", [](RunConfig& config) {
          config.train.checkpoint_activations = Recompute::kBlock;
        }) == whole);
}

TEST_CASE("Trainer: a resume refuses another mixture", "[train][data]") {
  const Corpora corpora;
  corpora.train("run");
  const auto refused = [&](const Configure& configure, const std::string& why) {
    auto config = corpora.config("run");
    config.train.steps = 14;
    configure(config);
    CHECK_THROWS_WITH(Trainer(posix_io(), config, "auto"), Catch::Contains(why));
  };
  refused([](RunConfig& config) { config.data.weights = {1, 2}; }, "data.weights");
  refused([](RunConfig& config) { config.data.document_mask = false; }, "data.document_mask");
  refused([&](RunConfig& config) { std::swap(config.data.train[0], config.data.train[1]); },
          "other tokens");
}

}  // namespace dsmoe
