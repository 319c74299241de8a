#include "train/checkpoint_store.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <limits>

#include "common/error.h"
#include "model/io/checkpoint_reader.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

CheckpointContents contents_of(int64_t step) {
  CheckpointContents contents;
  contents.manifest.run_id = "0123456789abcdef";
  contents.manifest.step = step;
  const auto value = static_cast<double>(step);
  contents.model = {{"a.weight", at::full({3, 5}, value)}, {"b", at::full({2}, -value)}};
  contents.optimizer = {{"a.weight.exp_avg", at::full({3, 5}, value / 2)}};
  contents.files = {{"config.json", "{}"}};
  return contents;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(directory)) {
    names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST_CASE("CheckpointStore: what is saved is verified and read back", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), 2);
  const auto saved = store.save(contents_of(7));
  CHECK(saved == directory.file("run") + "/checkpoints/step-00000007");
  const auto found = find_checkpoint(posix_io(), directory.file("run"));
  CHECK(found.directory == saved);
  CHECK(found.manifest.step == 7);
  const NamedTensors targets = {{"a.weight", at::full({3, 5}, 0.0)}, {"b", at::full({2}, 0.0)}};
  load_tensors(posix_io(), found, "model-", targets);
  CHECK(targets[0].second.eq(7.0).all().item<bool>());
  CHECK(targets[1].second.eq(-7.0).all().item<bool>());
  CHECK(read_file(posix_io(), directory.file("run") + "/latest", 100) == "step-00000007\n");
}

TEST_CASE("load_tensors: a missing, left over, reshaped or retyped tensor is named",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), 2);
  store.save(contents_of(7));
  const auto found = find_checkpoint(posix_io(), directory.file("run"));
  const auto a = at::full({3, 5}, 0.0);
  const auto b = at::full({2}, 0.0);
  const auto load = [&](const NamedTensors& targets) {
    load_tensors(posix_io(), found, "model-", targets);
  };
  CHECK_THROWS_WITH(load({{"a.weight", a}, {"b", b}, {"c", b}}), Catch::Contains("'c'"));
  CHECK_THROWS_WITH(load({{"a.weight", a}}), Catch::Contains("'b'"));
  CHECK_THROWS_WITH(load({{"a.weight", a.t()}, {"b", b}}), Catch::Contains("[5, 3]"));
  CHECK_THROWS_WITH(load({{"a.weight", a}, {"b", b.to(at::kDouble)}}), Catch::Contains("F64"));
  CHECK(a.eq(0.0).all().item<bool>());
}

TEST_CASE("CheckpointStore: only the newest are kept", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), 2);
  for (const int64_t step : {1, 2, 3, 4}) store.save(contents_of(step));
  CHECK(names_in(directory.file("run") + "/checkpoints") ==
        std::vector<std::string>{"step-00000003", "step-00000004"});
}

TEST_CASE("CheckpointStore: a step that is there is left alone", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), 2);
  const auto saved = store.save(contents_of(5));
  const auto before = fs::last_write_time(saved + "/manifest.json");
  CHECK(store.save(contents_of(5)) == saved);
  CHECK(fs::last_write_time(saved + "/manifest.json") == before);
}

TEST_CASE("CheckpointStore: a NaN is not saved", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), 2);
  auto contents = contents_of(1);
  contents.model[1].second[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(store.save(contents), Catch::Contains("'b'"));
  CHECK_FALSE(fs::exists(directory.file("run") + "/checkpoints/step-00000001"));
}

TEST_CASE("CheckpointStore: whichever call fails, a valid checkpoint remains",
          "[train][checkpoint]") {
  bool done = false;
  int first_failure = 1;
  for (; !done; ++first_failure) {
    REQUIRE(first_failure < 200);
    const TemporaryDirectory directory;
    CheckpointStore(posix_io(), directory.file("run"), 1).save(contents_of(1));
    FailingIo failing(first_failure);
    CheckpointStore store(failing, directory.file("run"), 1);
    try {
      store.save(contents_of(2));
      done = !failing.has_failed();
      CHECK(done);  // no failure passes in silence
    } catch (const RunError&) {
    }
    const auto found = find_checkpoint(posix_io(), directory.file("run"));
    CHECK((found.manifest.step == 1 || found.manifest.step == 2));
    if (done) CHECK(found.manifest.step == 2);
    CheckpointStore(posix_io(), directory.file("run"), 1).clean();
    for (const auto& name : names_in(directory.file("run") + "/checkpoints")) {
      CHECK(name.rfind("step-", 0) == 0);
    }
  }
  CHECK(first_failure > 10);  // the loop has met every call of a save
}

}  // namespace
}  // namespace dsmoe
