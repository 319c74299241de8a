#include "common/staged_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <vector>

#include "common/error.h"
#include "fault/fault_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using Names = std::vector<std::string>;

constexpr const char* kNew = "the new content";

Names names_in(const std::string& directory) {
  Names names;
  for (const auto& item : fs::directory_iterator(directory)) {
    names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string text_of(const std::string& path) { return read_file(posix_io(), path, 1000); }

void write_text(const std::string& path, const std::string& text) {
  write_file(posix_io(), path, text);
}

// An output directory with the marker and one more file.
void fill_with(Io& io, const std::string& directory, const std::string& text) {
  write_file(io, directory + "/marker.json", "{}");
  write_file(io, directory + "/data", text);
}

void make_old_directory(const std::string& path) {
  fs::create_directory(path);
  fill_with(posix_io(), path, "old");
}

// A user's files with the names of temporaries of earlier versions.
void add_neighbours(const TemporaryDirectory& directory) {
  for (const std::string name : {"out.tmp", "out.tmp-convert", ".out.tmp-1-0000000f"}) {
    fs::create_directory(directory.file(name));
    write_text(directory.file(name) + "/notes", "mine");
  }
}
const Names kNeighbours = {".out.tmp-1-0000000f", "out.tmp", "out.tmp-convert"};

void check_neighbours(const TemporaryDirectory& directory) {
  for (const auto& name : kNeighbours) CHECK(text_of(directory.file(name) + "/notes") == "mine");
}

Names with_neighbours(Names names) {
  names.insert(names.end(), kNeighbours.begin(), kNeighbours.end());
  std::sort(names.begin(), names.end());
  return names;
}

// Returns whether the work failed under the fault.
bool fails(FaultIo& io, const std::function<void(Io& io)>& work) {
  try {
    work(io);
    return false;
  } catch (const RunError& error) {
    CHECK_THAT(error.what(), !Contains(".tmp-"));
    return true;
  } catch (const ProcessDeath&) {
    return true;
  }
}

struct Trial {
  Fault fault;
  bool has_failed = false;
  std::vector<Operation> operations;

  // Only a fault that makes the removal fail leaves a temporary.
  bool may_leave_temporary() const {
    if (fault.kind != Fault::Kind::kFailOnce) return true;
    const auto at = static_cast<size_t>(fault.at);
    return at <= operations.size() &&
           (operations[at - 1] == Operation::kUnlink || operations[at - 1] == Operation::kRmdir);
  }
};

// Injects every kind of failure at every operation of `work`; calls `prepare` before each, `check`
// after.
void try_every_fault(const std::function<void()>& prepare,
                     const std::function<void(Io& io)>& work,
                     const std::function<void(const Trial& trial)>& check) {
  for (const auto kind :
       {Fault::Kind::kFailOnce, Fault::Kind::kFailFromNowOn, Fault::Kind::kCrash}) {
    bool has_struck = true;
    for (int64_t at = 1; has_struck; ++at) {
      REQUIRE(at < 100);
      const Fault fault{.kind = kind, .at = at, .error = ENOSPC};
      prepare();
      FaultIo io(fault);
      Trial trial{.fault = fault, .has_failed = fails(io, work), .operations = io.operations()};
      has_struck = io.has_struck();
      CAPTURE(static_cast<int>(kind), at, operation_name(trial.operations.back()));
      if (!has_struck) CHECK_FALSE(trial.has_failed);
      check(trial);
    }
  }
}

TEST_CASE(
    "write_output_file: under any fault a new file is whole or absent and no neighbour changes",
    "[common][output]") {
  const TemporaryDirectory directory(TemporaryDirectory::memory());
  const auto path = directory.file("out");
  add_neighbours(directory);
  const auto before = names_in(directory.file(""));
  try_every_fault(
      [&] {
        for (const auto& name : names_in(directory.file(""))) {
          if (!std::count(before.begin(), before.end(), name)) fs::remove_all(directory.file(name));
        }
      },
      [&](Io& io) { write_output_file(io, path, kNew, Existing::kRefuse); },
      [&](const Trial& trial) {
        if (fs::exists(path)) CHECK(text_of(path) == kNew);
        if (!trial.has_failed) CHECK(fs::exists(path));
        if (!trial.may_leave_temporary()) {
          CHECK(names_in(directory.file("")) ==
                with_neighbours(fs::exists(path) ? Names{"out"} : Names{}));
        }
        check_neighbours(directory);
      });
}

TEST_CASE("write_output_file: under any fault a replaced file has the old content or the new",
          "[common][output]") {
  const TemporaryDirectory directory(TemporaryDirectory::memory());
  const auto path = directory.file("out");
  try_every_fault(
      [&] {
        for (const auto& name : names_in(directory.file(""))) fs::remove_all(directory.file(name));
        write_text(path, "old");
      },
      [&](Io& io) { write_output_file(io, path, kNew, Existing::kReplace); },
      [&](const Trial& trial) {
        const auto found = text_of(path);
        CHECK((found == kNew || (trial.has_failed && found == "old")));
        if (!trial.may_leave_temporary()) {
          CHECK(names_in(directory.file("")) == Names{"out"});
        }
      });
}

TEST_CASE("write_output_directory: under any fault a new directory is whole or absent",
          "[common][output]") {
  const TemporaryDirectory directory(TemporaryDirectory::memory());
  const auto path = directory.file("out");
  add_neighbours(directory);
  const auto before = names_in(directory.file(""));
  try_every_fault(
      [&] {
        for (const auto& name : names_in(directory.file(""))) {
          if (!std::count(before.begin(), before.end(), name)) fs::remove_all(directory.file(name));
        }
      },
      [&](Io& io) {
        write_output_directory(
            io, {path}, [&](const std::string& temporary) { fill_with(io, temporary, kNew); });
      },
      [&](const Trial& trial) {
        if (fs::exists(path)) {
          CHECK(names_in(path) == Names{"data", "marker.json"});
          CHECK(text_of(path + "/data") == kNew);
        }
        if (!trial.has_failed) CHECK(fs::exists(path));
        if (!trial.may_leave_temporary()) {
          CHECK(names_in(directory.file("")) ==
                with_neighbours(fs::exists(path) ? Names{"out"} : Names{}));
        }
        check_neighbours(directory);
      });
}

TEST_CASE("write_output_directory: a replaced directory has all old files or all new ones",
          "[common][output]") {
  const TemporaryDirectory directory(TemporaryDirectory::memory());
  const auto path = directory.file("out");
  try_every_fault(
      [&] {
        for (const auto& name : names_in(directory.file(""))) fs::remove_all(directory.file(name));
        make_old_directory(path);
      },
      [&](Io& io) {
        write_output_directory(
            io, {path, Existing::kReplace, "marker.json"}, [&](const std::string& temporary) {
              fill_with(io, temporary, kNew);
            });
      },
      [&](const Trial& trial) {
        CHECK(names_in(path) == Names{"data", "marker.json"});
        const auto found = text_of(path + "/data");
        CHECK((found == kNew || (trial.has_failed && found == "old")));
        if (!trial.may_leave_temporary()) CHECK(names_in(directory.file("")) == Names{"out"});
      });
}

TEST_CASE("write_output_directory: old content that cannot be put back is left, not removed",
          "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("out");
  const auto replace = [&](Io& io) {
    make_old_directory(path);
    write_output_directory(io,
                           {path, Existing::kReplace, "marker.json"},
                           [&](const std::string& temporary) { fill_with(io, temporary, kNew); });
  };
  FaultIo count({});
  replace(count);
  fs::remove_all(path);
  const auto operations = count.operations();
  const auto at = std::find(operations.begin(), operations.end(), Operation::kExchange) -
                  operations.begin() + 1;
  // The directory above cannot be opened to sync it, and the swap back fails too.
  FaultIo below({Fault::Kind::kFailOnce, at + 1, EIO});
  FaultIo io({Fault::Kind::kFailOnce, at + 1, EIO}, below);
  CHECK_THROWS_AS(replace(io), RunError);
  CHECK(text_of(path + "/data") == kNew);
  const auto names = names_in(directory.file(""));
  REQUIRE(names.size() == 2);
  CHECK(is_temporary_of(names[0], "out"));
  CHECK(text_of(directory.file(names[0]) + "/data") == "old");
}

TEST_CASE("write_output_file: where the file system cannot refuse to replace, a link does",
          "[common][output]") {
  for (const auto second : {0, EPERM}) {  // EPERM: links are missing too
    const TemporaryDirectory directory;
    const auto path = directory.file("out");
    const auto write = [&](const std::function<void()>& meanwhile) {
      FaultIo count({});
      write_output_file(count, directory.file("count"), kNew, Existing::kRefuse);
      fs::remove(directory.file("count"));
      const auto operations = count.operations();
      const auto at = std::find(operations.begin(), operations.end(), Operation::kRenameNoReplace) -
                      operations.begin() + 1;
      FaultIo without_links({Fault::Kind::kFailOnce, second == 0 ? 0 : at, second});
      FaultIo io({Fault::Kind::kFailOnce, at, EINVAL}, without_links);
      write_output_file(io, path, Existing::kRefuse, [&](const std::string& temporary) {
        write_file(io, temporary, kNew);
        meanwhile();
      });
    };
    write([] {});
    CHECK(text_of(path) == kNew);
    fs::remove(path);
    CHECK_THROWS_WITH(write([&] { write_text(path, "of another"); }), Contains("meanwhile"));
    CHECK(text_of(path) == "of another");
    CHECK(names_in(directory.file("")) == Names{"out"});
  }
}

TEST_CASE("write_output_directory: where two names cannot be swapped, the old one moves aside",
          "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("out");
  const OutputDirectory output{path, Existing::kReplace, "marker.json"};
  const auto replace = [&](Io& io) {
    write_output_directory(
        io, output, [&](const std::string& temporary) { fill_with(io, temporary, kNew); });
  };
  make_old_directory(path);
  FaultIo count({});
  replace(count);
  const auto operations = count.operations();
  const auto at = std::find(operations.begin(), operations.end(), Operation::kExchange) -
                  operations.begin() + 1;
  FaultIo whole({Fault::Kind::kFailOnce, at, EINVAL});
  fs::remove_all(path);
  make_old_directory(path);
  replace(whole);
  CHECK(text_of(path + "/data") == kNew);
  CHECK(names_in(directory.file("")) == Names{"out"});
  // Then a failure at every later operation.
  for (int64_t later = 1; later < 12; ++later) {
    CAPTURE(later);
    fs::remove_all(path);
    make_old_directory(path);
    FaultIo below({Fault::Kind::kFailOnce, at - 1 + later, EIO});
    FaultIo io({Fault::Kind::kFailOnce, at, EINVAL}, below);
    bool has_failed = false;
    try {
      replace(io);
    } catch (const RunError&) {
      has_failed = true;
    }
    const auto found = text_of(path + "/data");
    CHECK((found == kNew || (has_failed && found == "old")));
    for (const auto& name : names_in(directory.file(""))) {
      if (name != "out") fs::remove_all(directory.file(name));
    }
  }
}

TEST_CASE("write_output_*: an output that another process finished meanwhile stays",
          "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("out");
  SECTION("a file") {
    CHECK_THROWS_WITH(write_output_file(posix_io(),
                                        path,
                                        Existing::kRefuse,
                                        [&](const std::string& temporary) {
                                          write_text(temporary, kNew);
                                          write_text(path, "of another");
                                        }),
                      Contains(path) && Contains("meanwhile") && Contains("--force"));
    CHECK(text_of(path) == "of another");
  }
  SECTION("a directory") {
    CHECK_THROWS_WITH(write_output_directory(posix_io(),
                                             {path},
                                             [&](const std::string& temporary) {
                                               fill_with(posix_io(), temporary, kNew);
                                               make_old_directory(path);
                                             }),
                      Contains(path) && Contains("meanwhile") && Contains("--force"));
    CHECK(text_of(path + "/data") == "old");
  }
  SECTION("a file where a directory was to be") {
    CHECK_THROWS_WITH(write_output_directory(posix_io(),
                                             {path},
                                             [&](const std::string& temporary) {
                                               fill_with(posix_io(), temporary, kNew);
                                               write_text(path, "of another");
                                             }),
                      Contains("meanwhile"));
    CHECK(text_of(path) == "of another");
  }
  CHECK(names_in(directory.file("")) == Names{"out"});
}

TEST_CASE("check_output_*: an existing output is refused, and the error says what to do",
          "[common][output]") {
  const TemporaryDirectory directory;
  const auto file = directory.file("file");
  const auto folder = directory.file("folder");
  write_text(file, "old");
  make_old_directory(folder);
  CHECK_THROWS_WITH(check_output_file(file, Existing::kRefuse),
                    Contains("exists") && Contains("--force"));
  CHECK_NOTHROW(check_output_file(file, Existing::kReplace));
  CHECK_THROWS_AS(check_output_file(folder, Existing::kRefuse), Error);
  CHECK_THROWS_WITH(check_output_file(folder, Existing::kReplace), Contains("got a directory"));
  CHECK_THROWS_WITH(check_output_file(directory.file("no/file"), Existing::kRefuse),
                    Contains("expected the directory") && Contains("got none"));
  CHECK_THROWS_WITH(check_output_file(file + "/x", Existing::kRefuse), Contains("got a file"));
  CHECK_THROWS_WITH(check_output_directory({folder}), Contains("exists") && Contains("--force"));
  CHECK_THROWS_AS(check_output_directory({file}), Error);
  for (const std::string none : {"", ".", "..", "/", "a/.."}) {
    CHECK_THROWS_AS(check_output_directory({none}), Error);
  }
  fs::create_symlink("nowhere", directory.file("link"));
  CHECK_THROWS_AS(check_output_file(directory.file("link"), Existing::kRefuse), Error);
  fs::create_directory(directory.file("empty"));
  CHECK_NOTHROW(check_output_directory({directory.file("empty/")}));
}

TEST_CASE("check_output_directory: only an earlier output of the same kind may be replaced",
          "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("out");
  const OutputDirectory output{path + "/", Existing::kReplace, "marker.json"};
  make_old_directory(path);
  CHECK_NOTHROW(check_output_directory(output));
  SECTION("a directory without the marker") { fs::remove(path + "/marker.json"); }
  SECTION("a directory that holds directories") { fs::create_directory(path + "/more"); }
  SECTION("a directory that holds links") { fs::create_symlink("data", path + "/link"); }
  SECTION("a link to an output") {
    fs::rename(path, directory.file("real"));
    fs::create_directory_symlink(directory.file("real"), path);
  }
  SECTION("a file") {
    fs::remove_all(path);
    write_text(path, "mine");
  }
  CHECK_THROWS_WITH(check_output_directory(output), Contains("--force expects"));
}

TEST_CASE("write_output_directory: an empty directory counts as absent and is replaced",
          "[common][output]") {
  const TemporaryDirectory directory;
  fs::create_directory(directory.file("out"));
  write_output_directory(posix_io(), {directory.file("out/")}, [](const std::string& temporary) {
    fill_with(posix_io(), temporary, kNew);
  });
  CHECK(text_of(directory.file("out/data")) == kNew);
  CHECK(names_in(directory.file("")) == Names{"out"});
}

TEST_CASE("write_output_file: a link keeps pointing to the file that is replaced",
          "[common][output]") {
  const TemporaryDirectory directory;
  fs::create_directory(directory.file("elsewhere"));
  write_text(directory.file("elsewhere/page"), "old");
  fs::create_symlink("elsewhere/page", directory.file("link"));
  write_output_file(posix_io(), directory.file("link"), kNew, Existing::kReplace);
  CHECK(fs::is_symlink(directory.file("link")));
  CHECK(text_of(directory.file("elsewhere/page")) == kNew);
}

TEST_CASE("write_output_file: a pipe gets the bytes and stays a pipe", "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("pipe");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  auto& io = posix_io();
  const int reader = io.open(path, O_RDONLY | O_NONBLOCK, 0);
  write_output_file(io, path, kNew, Existing::kRefuse);
  std::string text(100, '\0');
  text.resize(static_cast<size_t>(::read(reader, text.data(), text.size())));
  io.close(reader);
  CHECK(text == kNew);
  CHECK(fs::is_fifo(path));
  CHECK_THROWS_AS(write_output_file(io, path, Existing::kReplace, [](const std::string&) {}),
                  Error);
}

TEST_CASE("write_output_*: errors of fill name the target", "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("out");
  const auto fill = [](const std::string& temporary) { throw Error(temporary + "/x: is bad"); };
  CHECK_THROWS_WITH(write_output_directory(posix_io(), {path}, fill), path + "/x: is bad");
  CHECK_THROWS_WITH(write_output_file(posix_io(), path, Existing::kRefuse, fill),
                    path + "/x: is bad");
  CHECK(names_in(directory.file("")).empty());
}

TEST_CASE("is_temporary_of: accepts temporaries of the target only", "[common][output]") {
  const TemporaryDirectory directory;
  std::string made;
  write_output_file(
      posix_io(), directory.file("latest"), Existing::kRefuse, [&](const std::string& temporary) {
        made = fs::path(temporary).filename();
      });
  CHECK(is_temporary_of(made, "latest"));
  CHECK_FALSE(is_temporary_of(made, "late"));
  for (const char* other : {"latest",
                            "latest.tmp",
                            ".latest.tmp-",
                            ".latest.tmp-12",
                            ".latest.tmp-12-",
                            ".latest.tmp--0000000f",
                            ".latest.tmp-1x-0000000f",
                            ".latest.tmp-12-0000000g",
                            ".latest.tmp-12-0000000ff"}) {
    CHECK_FALSE(is_temporary_of(other, "latest"));
  }
}

TEST_CASE("write_output_file: accepts names up to the system's limit", "[common][output]") {
  const TemporaryDirectory directory;
  const auto path = directory.file(std::string(255, 'n'));
  write_output_file(posix_io(), path, kNew, Existing::kRefuse);
  CHECK(text_of(path) == kNew);
}

}  // namespace
}  // namespace dsmoe
