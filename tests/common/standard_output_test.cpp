#include "common/standard_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <thread>

#include "fault/fault_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

int new_file(const TemporaryDirectory& directory) {
  return posix_io().open(directory.file("out"), O_WRONLY | O_CREAT, kFileMode);
}

TEST_CASE("StandardOutput: printed text arrives in order, also through short writes",
          "[common][output]") {
  const TemporaryDirectory directory;
  FaultIo io({.kind = Fault::Kind::kShort, .at = 1});
  StandardOutput output(io, new_file(directory));
  output.write("one ");
  output.write("two\n");
  CHECK_FALSE(output.is_lost());
  CHECK(output.finish().empty());
  CHECK(read_file(posix_io(), directory.file("out"), 100) == "one two\n");
}

TEST_CASE("StandardOutput: a failure of any write or of close is reported once, by finish",
          "[common][output]") {
  for (const int64_t at : {1, 2, 3}) {
    CAPTURE(at);
    const TemporaryDirectory directory;
    FaultIo io({.kind = Fault::Kind::kFailOnce, .at = at, .error = ENOSPC});
    StandardOutput output(io, new_file(directory));
    output.write("one ");
    CHECK(output.is_lost() == (at == 1));
    output.write("two\n");
    CHECK(output.is_lost() == (at <= 2));
    CHECK(output.finish() == (at == 3 ? "standard output: cannot close: No space left on device"
                                      : "standard output: cannot write: No space left on device"));
    // Nothing follows a gap.
    CHECK(read_file(posix_io(), directory.file("out"), 100) == (at == 1   ? ""
                                                                : at == 2 ? "one "
                                                                          : "one two\n"));
  }
}

TEST_CASE("StandardOutput: interrupted writes are repeated", "[common][output]") {
  const TemporaryDirectory directory;
  FaultIo io({.kind = Fault::Kind::kFailOnce, .at = 1, .error = EINTR});
  StandardOutput output(io, new_file(directory));
  output.write("text");
  CHECK(output.finish().empty());
  CHECK(read_file(posix_io(), directory.file("out"), 100) == "text");
}

TEST_CASE("StandardOutput: a closed pipe and a closed descriptor are failures",
          "[common][output]") {
  const auto previous = std::signal(SIGPIPE, SIG_IGN);
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  ::close(ends[0]);
  StandardOutput piped(posix_io(), ends[1]);
  piped.write("text");
  CHECK_THAT(piped.finish(), Contains("Broken pipe"));
  ::close(ends[1]);
  StandardOutput closed(posix_io(), ends[1]);
  closed.write("text");
  CHECK_THAT(closed.finish(), Contains("Bad file descriptor"));
  StandardOutput unused(posix_io(), ends[1]);
  CHECK(unused.finish().empty());
  std::signal(SIGPIPE, previous);
}

TEST_CASE("StandardOutput: waits for a full non-blocking pipe", "[common][output]") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_NONBLOCK) == 0);
  const std::string text(1 << 20, 'x');  // a pipe holds 64 KiB
  std::string received;
  std::thread reader([&] {
    ::fcntl(ends[0], F_SETFL, 0);
    std::array<char, 4096> part{};
    for (ssize_t n = 0; (n = ::read(ends[0], part.data(), part.size())) > 0;) {
      received.append(part.data(), static_cast<size_t>(n));
    }
  });
  StandardOutput output(posix_io(), ends[1]);
  output.write(text);
  CHECK(output.finish().empty());  // closes, so the reader ends
  reader.join();
  ::close(ends[0]);
  CHECK(received == text);
}

}  // namespace
}  // namespace dsmoe
