#include "train/checkpoint_saver.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <thread>

#include "common/error.h"
#include "fault/fault_io.h"
#include "model/io/checkpoint_reader.h"
#include "support/temporary_directory.h"
#include "train/tiny_checkpoint.h"

namespace dsmoe {
namespace {

// All values of a checkpoint's manifest, its hashes included.
std::string manifest_of(const std::string& run, int64_t step) {
  const auto name = "/checkpoints/step-0000000" + std::to_string(step);
  return manifest_to_json(read_manifest(posix_io(), run + name));
}

// The number of a save's first write.
int64_t first_write() {
  const TemporaryDirectory directory;
  FaultIo io({});
  CheckpointStore(io, directory.file("run"), {}).save(tiny_checkpoint(1));
  const auto operations = io.operations();
  const auto found = std::find(operations.begin(), operations.end(), Operation::kWrite);
  return found - operations.begin() + 1;
}

// Calls check() until the save in flight has failed: it throws or counts the failure.
// The time-out of the test bounds the loop.
void check_until_failure(CheckpointSaver& saver) {
  for (; saver.n_failed() == 0; std::this_thread::yield()) saver.check();
}

TEST_CASE("CheckpointSaver: saves the values at the call, unaffected by later changes",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore in_place(posix_io(), directory.file("in_place"), {.keep_last = 9});
  CheckpointStore store(posix_io(), directory.file("run"), {.keep_last = 9});
  CheckpointSaver saver(store, OnSaveFailure::kStop);
  auto contents = tiny_checkpoint(1);
  for (const int64_t step : {1, 2, 3}) {
    contents.manifest.step = step;
    in_place.save(contents);
    saver.start(contents);
    for (auto* tensors : {&contents.model, &contents.optimizer}) {
      for (auto& [name, tensor] : *tensors) tensor.add_(1.0);
    }
    contents.files.front().second += " ";
  }
  saver.finish();
  CHECK(saver.newest() == directory.file("run") + "/checkpoints/step-00000003");
  for (const int64_t step : {1, 2, 3}) {
    CHECK(manifest_of(directory.file("run"), step) ==
          manifest_of(directory.file("in_place"), step));
  }
}

TEST_CASE("CheckpointSaver: a failed save stops the run at the next check", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  FaultIo io({.kind = Fault::Kind::kFailOnce, .at = first_write(), .error = ENOSPC});
  CheckpointStore store(io, directory.file("run"), {.keep_last = 2});
  CheckpointSaver saver(store, OnSaveFailure::kStop);
  saver.start(tiny_checkpoint(1));
  CHECK_THROWS_WITH(check_until_failure(saver), Catch::Contains("No space left on device"));
  CHECK(saver.newest().empty());
  CHECK_NOTHROW(saver.finish());  // a failure is reported once
}

TEST_CASE("CheckpointSaver: with continue the next save tries again; the last save must succeed",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  FaultIo io({.kind = Fault::Kind::kFailOnce, .at = first_write(), .error = ENOSPC});
  CheckpointStore store(io, directory.file("run"), {.keep_last = 2});
  CheckpointSaver saver(store, OnSaveFailure::kContinue);
  saver.start(tiny_checkpoint(1));
  CHECK_NOTHROW(check_until_failure(saver));
  CHECK(saver.n_failed() == 1);
  saver.start(tiny_checkpoint(2));
  saver.finish();
  CHECK(find_checkpoint(posix_io(), directory.file("run")).manifest.step == 2);
  FaultIo full({.kind = Fault::Kind::kFailFromNowOn, .at = 1, .error = ENOSPC});
  CheckpointStore last(full, directory.file("run"), {.keep_last = 2});
  CheckpointSaver last_saver(last, OnSaveFailure::kContinue);
  last_saver.start(tiny_checkpoint(3));
  CHECK_THROWS_AS(last_saver.finish(), RunError);
}

}  // namespace
}  // namespace dsmoe
