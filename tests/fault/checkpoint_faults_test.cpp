// The store under faults: a save over one older checkpoint that it then removes.
#include <ATen/ops/full.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <set>

#include "common/error.h"
#include "common/process_setup.h"
#include "fault/fault_io.h"
#include "fault/power_cut_io.h"
#include "model/io/checkpoint_reader.h"
#include "support/temporary_directory.h"
#include "train/checkpoint_store.h"
#include "train/tiny_checkpoint.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr Retention kOne{.keep_last = 1};

// Returns the step of the newest checkpoint; every byte of it must belong to that step.
int64_t loaded_step(const std::string& run) {
  const auto found = find_checkpoint(posix_io(), run);
  const auto step = static_cast<double>(found.manifest.step);
  const NamedTensors model = {{"a.weight", at::full({3, 5}, 0.0)}, {"b", at::full({2}, 0.0)}};
  const NamedTensors optimizer = {{"a.weight.exp_avg", at::full({3, 5}, 0.0)}};
  load_tensors(posix_io(), found, "model-", model);
  load_tensors(posix_io(), found, "optimizer-", optimizer);
  REQUIRE(model[0].second.eq(step).all().item<bool>());
  REQUIRE(model[1].second.eq(-step).all().item<bool>());
  REQUIRE(optimizer[0].second.eq(step / 2).all().item<bool>());
  return found.manifest.step;
}

bool has_leftovers(const std::string& run) {
  for (const auto& item : fs::recursive_directory_iterator(run)) {
    const auto name = item.path().filename().string();
    if (name.find(".tmp-") != std::string::npos || name.rfind(".trash-", 0) == 0) return true;
  }
  return false;
}

void save(Io& io, const std::string& run, int64_t step) {
  CheckpointStore store(io, run, kOne);
  store.clean();
  auto contents = tiny_checkpoint(step);
  contents.best_step = step;
  store.save(contents);
}

// A run directory with step 1, cleared and made anew for every fault.
struct Run {
  TemporaryDirectory directory{TemporaryDirectory::memory()};
  std::string path = directory.file("run");
  void begin() const {
    fs::remove_all(path);
    fs::create_directories(path);
    save(posix_io(), path, 1);
  }
  // The work of the next process; leftovers of the last one must not block it.
  void go_on() const {
    save(posix_io(), path, 3);
    REQUIRE(loaded_step(path) == 3);
    REQUIRE_FALSE(has_leftovers(path));
  }
};

// Operations of the save, in order.
std::vector<Operation> operations_of_save(const Run& run) {
  run.begin();
  FaultIo io({});
  save(io, run.path, 2);
  REQUIRE(loaded_step(run.path) == 2);
  return io.operations();
}

TEST_CASE("faults: a save uses every kind of operation but ftruncate", "[fault][checkpoint]") {
  const Run run;
  const auto operations = operations_of_save(run);
  const std::set<Operation> kinds(operations.begin(), operations.end());
  CHECK(kinds.size() == 9);
  CHECK(kinds.count(Operation::kTruncate) == 0);
  CHECK(operations.size() > 60);
}

TEST_CASE("faults: a crash at any operation of a save leaves the old or the new checkpoint",
          "[fault][checkpoint]") {
  const Run run;
  const auto n = static_cast<int64_t>(operations_of_save(run).size());
  for (const auto kind : {Fault::Kind::kCrash, Fault::Kind::kCrashTorn}) {
    for (int64_t at = 1; at <= n; ++at) {
      CAPTURE(static_cast<int>(kind), at);
      run.begin();
      FaultIo io({.kind = kind, .at = at});
      bool died = false;
      try {
        save(io, run.path, 2);
      } catch (const ProcessDeath&) {
        died = true;
      } catch (const RunError&) {
        died = true;  // the death was inside a close
      }
      REQUIRE(io.has_struck());
      REQUIRE((died || io.operations().back() == Operation::kClose));
      const auto step = loaded_step(run.path);
      REQUIRE((step == 1 || step == 2));
      run.go_on();
    }
  }
}

TEST_CASE("faults: a failure of any operation of a save is an error that leaves nothing broken",
          "[fault][checkpoint]") {
  const Run run;
  const auto operations = operations_of_save(run);
  for (const auto kind : {Fault::Kind::kFailOnce, Fault::Kind::kFailFromNowOn}) {
    for (const int error : {ENOSPC, EIO, EDQUOT, EINTR}) {
      if (error == EINTR && kind == Fault::Kind::kFailFromNowOn) continue;  // no such system
      for (size_t at = 1; at <= operations.size(); ++at) {
        const auto operation = operations[at - 1];
        CAPTURE(static_cast<int>(kind), error, at, operation_name(operation));
        run.begin();
        FaultIo io({.kind = kind, .at = static_cast<int64_t>(at), .error = error});
        std::string message;
        try {
          save(io, run.path, 2);
        } catch (const RunError& failure) {
          message = failure.what();
        }
        REQUIRE(io.has_struck());
        const bool is_repeated =
            error == EINTR && (operation == Operation::kWrite || operation == Operation::kPread);
        // Nobody needs the result of closing a file that was only read.
        const bool is_idle = operation == Operation::kClose && message.empty();
        if (is_repeated || is_idle) {
          REQUIRE(message.empty());
          REQUIRE(loaded_step(run.path) == 2);
        } else {
          REQUIRE_THAT(message, Catch::Contains(run.path));
          REQUIRE((loaded_step(run.path) == 1 || loaded_step(run.path) == 2));
          // Unfinished files are gone, unless removing failed too.
          const bool is_removal = operation == Operation::kUnlink ||
                                  operation == Operation::kRmdir ||
                                  operation == Operation::kRename ||
                                  operation == Operation::kFsync || operation == Operation::kOpen;
          if (kind == Fault::Kind::kFailOnce && !is_removal) REQUIRE_FALSE(has_leftovers(run.path));
        }
        run.go_on();
      }
    }
  }
}

TEST_CASE("faults: short writes and reads from any operation on change nothing",
          "[fault][checkpoint]") {
  const Run run;
  const auto n = static_cast<int64_t>(operations_of_save(run).size());
  for (int64_t at = 1; at <= n; at += 5) {
    run.begin();
    FaultIo io({.kind = Fault::Kind::kShort, .at = at});
    save(io, run.path, 2);
    REQUIRE(loaded_step(run.path) == 2);
  }
}

TEST_CASE("faults: a bit that the disk flips in a save is found before the old one goes",
          "[fault][checkpoint]") {
  const Run run;
  const auto operations = operations_of_save(run);
  int n_found = 0;
  for (size_t at = 1; at <= operations.size(); ++at) {
    if (operations[at - 1] != Operation::kWrite) continue;
    CAPTURE(at);
    run.begin();
    FaultIo io({.kind = Fault::Kind::kFlipBit, .at = static_cast<int64_t>(at)});
    try {
      save(io, run.path, 2);
      REQUIRE(loaded_step(run.path) == 2);  // only a hint was hit
    } catch (const RunError& failure) {
      REQUIRE_THAT(failure.what(), Catch::Contains("written, but"));
      REQUIRE(loaded_step(run.path) == 1);
      ++n_found;
    }
    run.go_on();
  }
  CHECK(n_found >= 8);  // every write but those of the two hints
}

TEST_CASE("faults: reading under faults gives a whole checkpoint or an error",
          "[fault][checkpoint]") {
  const Run run;
  run.begin();
  CheckpointStore(posix_io(), run.path, {.keep_last = 2}).save(tiny_checkpoint(2));
  FaultIo counting({});
  REQUIRE(find_newest_checkpoint(counting, run.path)->manifest.step == 2);
  const auto n = static_cast<int64_t>(counting.operations().size());
  int n_fallbacks = 0;
  for (int64_t at = 1; at <= n; ++at) {
    for (const int error : {EIO, EINTR, EMFILE}) {
      FaultIo io({.kind = Fault::Kind::kFailOnce, .at = at, .error = error});
      const auto found = find_newest_checkpoint(io, run.path);
      REQUIRE((found->manifest.step == 1 || found->manifest.step == 2));
      n_fallbacks += found->manifest.step == 1 ? 1 : 0;
    }
  }
  CHECK(n_fallbacks > 0);
}

TEST_CASE("faults: a power cut at any operation leaves the old or the new checkpoint",
          "[fault][checkpoint]") {
  using Loss = PowerCutIo::Loss;
  const Run run;
  const auto n = static_cast<int64_t>(operations_of_save(run).size());
  const auto cut_at = [&](int64_t at, Loss loss, uint64_t seed) {
    CAPTURE(at, static_cast<int>(loss), seed);
    run.begin();
    PowerCutIo disk(run.directory.file(""));
    FaultIo io({.kind = Fault::Kind::kCrash, .at = at}, disk);
    bool completed = false;
    try {
      save(io, run.path, 2);
      completed = io.operations().size() < static_cast<size_t>(at);
    } catch (const ProcessDeath&) {
    } catch (const RunError&) {
    }
    disk.cut(loss, seed);
    const auto step = loaded_step(run.path);
    REQUIRE((step == 2 || (step == 1 && !completed)));
    run.go_on();
  };
  for (const auto loss : {Loss::kBytes, Loss::kNames, Loss::kAll}) {
    for (int64_t at = 1; at <= n + 1; ++at) cut_at(at, loss, 0);
  }
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    cut_at(1 + static_cast<int64_t>(seed * 7) % (n + 1), Loss::kRandomSubset, seed);
  }
}

TEST_CASE("faults: the simulated disk forgets what was not synced", "[fault]") {
  using Loss = PowerCutIo::Loss;
  const TemporaryDirectory directory;
  const auto file = directory.file("a");
  const auto write = [&](PowerCutIo& disk, bool syncs_file, bool syncs_name) {
    fs::remove(file);
    const int fd = disk.open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    disk.write(fd, "12345", 5);
    if (syncs_file) disk.fsync(fd);
    disk.close(fd);
    if (syncs_name) fsync_directory(disk, directory.file(""));
  };
  const auto left_after = [&](bool syncs_file, bool syncs_name, Loss loss) {
    fs::remove(file);
    PowerCutIo disk(directory.file(""));
    write(disk, syncs_file, syncs_name);
    disk.cut(loss);
    return fs::exists(file) ? read_file(posix_io(), file, 9) : std::string("no file");
  };
  CHECK(left_after(false, false, Loss::kAll) == "no file");
  CHECK(left_after(true, false, Loss::kAll) == "no file");
  CHECK(left_after(false, true, Loss::kAll).empty());
  CHECK(left_after(true, true, Loss::kAll) == "12345");
  CHECK(left_after(false, false, Loss::kBytes).empty());
  CHECK(left_after(false, false, Loss::kNames) == "no file");
}

// Runs `work` in a child process; its exit status: 0 if it threw a RunError with `text` in it, and
// older checkpoints and the absence of leftovers were as promised.
int status_of_child(const std::function<void()>& work, const std::string& text) {
  const pid_t child = fork();
  if (child == 0) {
    int status = 1;
    try {
      work();
    } catch (const RunError& failure) {
      status = std::string(failure.what()).find(text) != std::string::npos ? 0 : 2;
    } catch (...) {
      status = 3;
    }
    _exit(status);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

TEST_CASE("faults: a file size limit is an error of the save, not the end of the process",
          "[fault][checkpoint]") {
  const Run run;
  for (const rlim_t limit : {100, 400, 800}) {
    CAPTURE(limit);
    run.begin();
    const int status = status_of_child(
        [&] {
          setup_process();
          const struct rlimit bound = {limit, limit};
          setrlimit(RLIMIT_FSIZE, &bound);
          save(posix_io(), run.path, 2);
        },
        run.path + "/checkpoints/.tmp-step-00000002/");
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(loaded_step(run.path) == 1);
    CHECK_FALSE(has_leftovers(run.path));
    run.go_on();
  }
}

TEST_CASE("faults: a full disk is an error of the save and leaves the older checkpoint",
          "[fault][checkpoint]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("");
  const auto large = [](int64_t step) {
    auto contents = tiny_checkpoint(step);
    contents.model.emplace_back("large", at::full({1 << 18}, 1.0));  // 1 MB
    return contents;
  };
  const auto work = [&] {
    CheckpointStore(posix_io(), run, kOne).save(large(1));
    try {
      CheckpointStore(posix_io(), run, kOne).save(large(2));
    } catch (const RunError&) {
      if (find_checkpoint(posix_io(), run).manifest.step != 1 || has_leftovers(run)) _exit(4);
      throw;
    }
  };
  const auto mounts = [&] {
    return unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           mount("tmpfs", run.c_str(), "tmpfs", 0, "size=1600k") == 0;
  };
  const int status = status_of_child(
      [&] {
        if (!mounts()) _exit(77);
        work();
      },
      "No space left on device");
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    WARN("skipped: mounting a small file system needs root");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace dsmoe
