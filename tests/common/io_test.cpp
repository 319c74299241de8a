#include "common/io.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/error.h"
#include "common/staged_output.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

using namespace dsmoe;

TEST_CASE("io: read_file returns the bytes that write_file wrote", "[common][io]") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("a.bin");
  const std::string bytes("\0a\xff\n", 4);
  write_file(posix_io(), path, bytes);
  REQUIRE(read_file(posix_io(), path, 4) == bytes);
  write_file(posix_io(), path, "");
  REQUIRE(read_file(posix_io(), path, 0).empty());
}

TEST_CASE("io: a missing, oversized or irregular file is an Error naming it", "[common][io]") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("a.bin");
  REQUIRE_THROWS_AS(read_file(posix_io(), path, 9), Error);
  REQUIRE_THROWS_WITH(read_file(posix_io(), path, 9), Catch::Contains(path));
  write_file(posix_io(), path, "12345");
  REQUIRE_THROWS_WITH(read_file(posix_io(), path, 4), Catch::Contains("at most 4 bytes, got 5"));
  REQUIRE_THROWS_AS(read_file(posix_io(), directory.file(""), 9), Error);
}

TEST_CASE("io: replace_file leaves the old or the new content whichever call fails",
          "[common][io]") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("a.txt");
  bool succeeded = false;
  for (int n = 1; !succeeded; ++n) {
    REQUIRE(n < 50);
    write_file(posix_io(), path, "old content");
    FailingIo io(n);
    try {
      replace_file(io, path, "the new content");
      succeeded = !io.has_failed();
      REQUIRE(succeeded);
    } catch (const RunError& error) {
      CAPTURE(n, error.what());
      REQUIRE(io.has_failed());
    }
    const std::string found = read_file(posix_io(), path, 100);
    REQUIRE((found == "old content" || found == "the new content"));
    if (succeeded) REQUIRE(found == "the new content");
  }
}

TEST_CASE("io: write_directory leaves all files or no directory, whichever call fails",
          "[common][io]") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("made");
  const std::string temporary = directory.file("tmp");
  make_directories(posix_io(), temporary);
  write_file(posix_io(), temporary + "/left", "by an attempt that died");
  bool succeeded = false;
  for (int n = 1; !succeeded; ++n) {
    REQUIRE(n < 50);
    FailingIo io(n);
    try {
      write_directory(io, temporary, path, [&] {
        write_file(io, temporary + "/a", "1");
        write_file(io, temporary + "/b", "2");
      });
      succeeded = true;
    } catch (const RunError&) {
      REQUIRE(io.has_failed());
    }
    CAPTURE(n);
    if (!std::filesystem::exists(path)) continue;
    CHECK(read_file(posix_io(), path + "/a", 9) + read_file(posix_io(), path + "/b", 9) == "12");
    CHECK_FALSE(std::filesystem::exists(path + "/left"));
    remove_tree(posix_io(), path);
  }
}

TEST_CASE("io: write_directory rethrows exceptions of fill and leaves nothing", "[common][io]") {
  const TemporaryDirectory directory;
  const std::string temporary = directory.file("tmp");
  const auto fill = [&] {
    write_file(posix_io(), temporary + "/a", "1");
    throw Error("no");
  };
  CHECK_THROWS_WITH(write_directory(posix_io(), temporary, directory.file("made"), fill), "no");
  CHECK(std::filesystem::is_empty(directory.file("")));
}

TEST_CASE("io: make_directories makes parents, remove_tree removes them", "[common][io]") {
  const TemporaryDirectory directory;
  const std::string deep = directory.file("a/b/c");
  make_directories(posix_io(), deep);
  make_directories(posix_io(), deep);
  write_file(posix_io(), deep + "/x", "1");
  REQUIRE(std::filesystem::is_regular_file(deep + "/x"));
  remove_tree(posix_io(), directory.file("a"));
  REQUIRE_FALSE(std::filesystem::exists(directory.file("a")));
  REQUIRE_NOTHROW(remove_tree(posix_io(), directory.file("a")));
  write_file(posix_io(), directory.file("plain"), "1");
  REQUIRE_THROWS_AS(make_directories(posix_io(), directory.file("plain/b")), RunError);
}
