#include "train/checkpoint_store.h"

#include <ATen/ops/full.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <limits>

#include "common/error.h"
#include "model/io/checkpoint_reader.h"
#include "support/temporary_directory.h"
#include "train/tiny_checkpoint.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(directory)) {
    names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST_CASE("CheckpointStore: a saved checkpoint is verified and read back", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), {.keep_last = 2});
  const auto saved = store.save(tiny_checkpoint(7));
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
  CheckpointStore store(posix_io(), directory.file("run"), {.keep_last = 2});
  store.save(tiny_checkpoint(7));
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
  CheckpointStore store(posix_io(), directory.file("run"), {.keep_last = 2});
  for (const int64_t step : {1, 2, 3, 4}) store.save(tiny_checkpoint(step));
  CHECK(names_in(directory.file("run") + "/checkpoints") ==
        std::vector<std::string>{"step-00000003", "step-00000004"});
}

TEST_CASE("CheckpointStore: clean removes only unfinished files of the run",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  const auto kept = std::vector<std::string>{
      ".latest.tmp", ".notes.tmp-7-0123abcd", ".tmp-notes", ".trash-step-1x", "latest.tmp", "mine"};
  for (const auto& name : kept) fs::create_directories(run + "/checkpoints/" + name);
  for (const auto& name : kept) fs::create_directories(run + "/" + name);
  for (const char* name : {"checkpoints/.tmp-step-00000003",
                           "checkpoints/.trash-step-00000002",
                           ".latest.tmp-7-0123abcd",
                           ".metrics.jsonl.tmp-7-0123abcd"}) {
    fs::create_directories(run + "/" + name);
  }
  CheckpointStore(posix_io(), run, {}).clean();
  CHECK(names_in(run + "/checkpoints") == kept);
  auto expected = kept;
  expected.insert(std::find(expected.begin(), expected.end(), "latest.tmp"), "checkpoints");
  CHECK(names_in(run) == expected);
}

TEST_CASE("CheckpointStore: an existing step stays unchanged", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), {.keep_last = 2});
  const auto saved = store.save(tiny_checkpoint(5));
  const auto before = fs::last_write_time(saved + "/manifest.json");
  CHECK(store.save(tiny_checkpoint(5)) == saved);
  CHECK(fs::last_write_time(saved + "/manifest.json") == before);
}

TEST_CASE("CheckpointStore: a NaN is not saved", "[train][checkpoint]") {
  const TemporaryDirectory directory;
  CheckpointStore store(posix_io(), directory.file("run"), {.keep_last = 2});
  auto contents = tiny_checkpoint(1);
  contents.model[1].second[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(store.save(contents), Catch::Contains("'b' holds a NaN or Inf at 0"));
  CHECK_FALSE(fs::exists(directory.file("run") + "/checkpoints/step-00000001"));
}

TEST_CASE("CheckpointStore: every m-th and the best stay, with a hint to the best",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  const auto save = [&](const Retention& retention, int64_t step, int64_t best_step) {
    auto contents = tiny_checkpoint(step);
    contents.best_step = best_step;
    CheckpointStore(posix_io(), run, retention).save(contents);
  };
  const Retention all_rules{.keep_last = 1, .keep_every = 4, .keep_best = true};
  for (const int64_t step : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    save(all_rules, step, step < 3 ? step : 3);  // validation was best at step 3
  }
  CHECK(
      names_in(run + "/checkpoints") ==
      std::vector<std::string>{"step-00000003", "step-00000004", "step-00000008", "step-00000009"});
  CHECK(read_file(posix_io(), run + "/best", 100) == "step-00000003\n");
  CHECK(read_file(posix_io(), run + "/latest", 100) == "step-00000009\n");
  save(all_rules, 10, 10);
  save({.keep_last = 1, .keep_every = 4, .keep_best = false}, 11, 10);
  CHECK(names_in(run + "/checkpoints") ==
        std::vector<std::string>{"step-00000004", "step-00000008", "step-00000011"});
}

TEST_CASE("CheckpointStore: damaged later steps are set aside and do not count as kept",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  CheckpointStore store(posix_io(), run, {.keep_last = 2});
  for (const int64_t step : {1, 2, 3}) store.save(tiny_checkpoint(step));
  fs::resize_file(run + "/checkpoints/step-00000003/config.json", 1);
  CHECK(find_checkpoint(posix_io(), run).manifest.step == 2);
  SECTION("when the run resumes from an earlier one") {
    store.set_aside_after(2);
    CHECK(names_in(run + "/checkpoints") ==
          std::vector<std::string>{".damaged-step-00000003", "step-00000002"});
  }
  SECTION("beside one that was set aside before") {
    fs::create_directory(run + "/checkpoints/.damaged-step-00000003");
    store.set_aside_after(2);
    CHECK(names_in(run + "/checkpoints") == std::vector<std::string>{".damaged-step-00000003",
                                                                     ".damaged-step-00000003.2",
                                                                     "step-00000002"});
  }
  SECTION("when the step is saved again") {
    store.save(tiny_checkpoint(3));
    CHECK(names_in(run + "/checkpoints") ==
          std::vector<std::string>{".damaged-step-00000003", "step-00000002", "step-00000003"});
  }
  CHECK_NOTHROW(find_checkpoint(posix_io(), run));
}

TEST_CASE("CheckpointStore: two saves of a model that was trained in between differ",
          "[train][checkpoint]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  CheckpointStore store(posix_io(), run, {.keep_last = 2});
  auto contents = tiny_checkpoint(1);
  store.save(contents);
  contents.manifest.step = 2;
  for (auto* tensors : {&contents.model, &contents.optimizer}) {
    for (auto& [name, tensor] : *tensors) tensor.add_(0.25);
  }
  store.save(contents);
  const auto first = read_manifest(posix_io(), run + "/checkpoints/step-00000001");
  const auto second = read_manifest(posix_io(), run + "/checkpoints/step-00000002");
  for (size_t file = 1; file < 3; ++file) {
    for (size_t i = 0; i < first.files[file].checksums.size(); ++i) {
      CHECK(first.files[file].checksums[i] != second.files[file].checksums[i]);
    }
  }
}

}  // namespace
}  // namespace dsmoe
