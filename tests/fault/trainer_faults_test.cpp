// A whole run under faults: every operation of set-up, metrics, saves and retention.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "common/error.h"
#include "fault/fault_io.h"
#include "fault/power_cut_io.h"
#include "model/io/checkpoint_reader.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

// Every n-th operation; 1 in the long test.
int64_t stride() {
  const char* text = std::getenv("DSMOE_FAULT_STRIDE");
  return text != nullptr ? std::atoll(text) : 23;
}

struct Runs {
  TemporaryDirectory directory{TemporaryDirectory::memory()};
  std::string shards = make_tiny_shards(directory);
  std::string path = directory.file("parent/run");

  Runs() { begin(); }
  void begin() const {
    fs::remove_all(directory.file("parent"));
    fs::create_directories(directory.file("parent"));
  }
  RunConfig config() const {
    auto config = tiny_run(path, shards);
    config.train.steps = 6;
    config.train.save_every = 2;
    config.train.keep_checkpoints = 1;
    config.train.keep_every = 4;
    config.data.validation = shards;
    config.train.validate_every = 3;
    return config;
  }
  void train(Io& io) const { Trainer(io, config(), "auto").run(); }

  // All output that must not depend on interruptions.
  std::string outcome() const {
    std::string text;
    const auto found = find_checkpoint(posix_io(), path);
    for (const auto& file : found.manifest.files) {
      for (const auto& checksum : file.checksums) text += checksum + "\n";
    }
    auto state = read_file(posix_io(), found.directory + "/state-rank-00000.json", 1 << 20);
    state.erase(state.find("\"run_id\""), std::string("\"run_id\": \"0123456789abcdef\"").size());
    text += state;
    std::istringstream lines(read_file(posix_io(), path + "/metrics.jsonl", 1 << 20));
    for (std::string line; std::getline(lines, line);) {
      // Not the times behind them.
      text +=
          line.substr(0, std::min(line.find("\"learning_rate\""), line.find("\"time\""))) + "\n";
    }
    return text;
  }
  std::vector<std::string> checkpoints() const {
    std::vector<std::string> names;
    for (const auto& entry : list_checkpoints(path)) names.push_back(fs::path(entry).filename());
    return names;
  }
};

TEST_CASE("faults: a run that dies at any operation ends like one that does not",
          "[fault][train]") {
  const Runs runs;
  FaultIo counting({});
  runs.train(counting);
  const auto expected = runs.outcome();
  CHECK(runs.checkpoints() == std::vector<std::string>{"step-00000006", "step-00000004"});
  const auto n = static_cast<int64_t>(counting.operations().size());
  CHECK(n > 150);
  for (int64_t at = 1; at <= n; at += stride()) {
    CAPTURE(at, n);
    runs.begin();
    FaultIo io({.kind = at % 2 == 0 ? Fault::Kind::kCrash : Fault::Kind::kCrashTorn, .at = at});
    try {
      runs.train(io);
    } catch (const ProcessDeath&) {
    } catch (const std::exception&) {  // reads and writes of a dead process fail
    }
    REQUIRE(io.has_struck());
    // The resumed process dies too, some operations later.
    FaultIo second({.kind = Fault::Kind::kCrash, .at = 1 + at % 37});
    try {
      runs.train(second);
    } catch (const ProcessDeath&) {
    } catch (const std::exception&) {  // reads and writes of a dead process fail
    }
    runs.train(posix_io());
    REQUIRE(runs.outcome() == expected);
    REQUIRE(runs.checkpoints() == std::vector<std::string>{"step-00000006", "step-00000004"});
  }
}

TEST_CASE("faults: a run on a failing disk ends with an error and resumes afterwards",
          "[fault][train]") {
  const Runs runs;
  FaultIo counting({});
  runs.train(counting);
  const auto expected = runs.outcome();
  const auto n = static_cast<int64_t>(counting.operations().size());
  for (int64_t at = 1; at <= n; at += stride()) {
    const int error = at % 3 == 0 ? ENOSPC : at % 3 == 1 ? EIO : EDQUOT;
    CAPTURE(at, error);
    runs.begin();
    FaultIo io({.kind = Fault::Kind::kFailFromNowOn, .at = at, .error = error});
    bool failed = false;
    try {
      runs.train(io);
    } catch (const RunError& failure) {
      failed = true;
      REQUIRE_THAT(failure.what(), Catch::Contains(runs.directory.file("parent")));
    }
    const auto operation = counting.operations()[static_cast<size_t>(at) - 1];
    if (operation != Operation::kClose) REQUIRE(failed);
    runs.train(posix_io());
    REQUIRE(runs.outcome() == expected);
  }
}

TEST_CASE("faults: a run that a power cut ends resumes to the same weights", "[fault][train]") {
  const Runs runs;
  FaultIo counting({});
  runs.train(counting);
  const auto manifest = find_checkpoint(posix_io(), runs.path).manifest;
  const auto n = static_cast<int64_t>(counting.operations().size());
  for (int64_t at = 1; at <= n; at += stride()) {
    runs.begin();
    const auto loss = at % 2 == 0 ? PowerCutIo::Loss::kAll : PowerCutIo::Loss::kRandomSubset;
    CAPTURE(at, static_cast<int>(loss));
    PowerCutIo disk(runs.directory.file("parent"));
    FaultIo io({.kind = Fault::Kind::kCrash, .at = at}, disk);
    try {
      runs.train(io);
    } catch (const ProcessDeath&) {
    } catch (const std::exception&) {  // reads and writes of a dead process fail
    }
    disk.cut(loss, static_cast<uint64_t>(at));
    runs.train(posix_io());
    const auto end = find_checkpoint(posix_io(), runs.path).manifest;
    REQUIRE(end.step == 6);
    for (size_t i = 0; i < end.files.size(); ++i) {
      REQUIRE(end.files[i].checksums == manifest.files[i].checksums);
    }
  }
}

}  // namespace
}  // namespace dsmoe
