#include "common/json_lines.h"

#include <catch2/catch.hpp>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

std::string content(const std::string& path) { return read_file(posix_io(), path, 1 << 20); }

}  // namespace

TEST_CASE("JSON lines are appended in full precision; NaN and Inf become null") {
  const TemporaryDirectory directory;
  const auto path = directory.file("metrics.jsonl");
  {
    JsonLines lines(posix_io(), path);
    lines.add({{"step", 1}, {"loss", 0.1}});
  }
  {
    JsonLines lines(posix_io(), path);
    lines.add({{"step", 2}, {"loss", std::numeric_limits<double>::quiet_NaN()}});
    CHECK(content(path) == "{\"step\":1,\"loss\":0.1}\n{\"step\":2,\"loss\":null}\n");
  }
}

TEST_CASE("lines after a step and a torn last line are removed, the others stay unchanged") {
  const TemporaryDirectory directory;
  const auto path = directory.file("metrics.jsonl");
  const std::string kept = "{\"step\":1,\"x\":0.1}\n{\"step\":2}\n";
  write_file(posix_io(), path, kept + "{\"step\":3}\n{\"step\":4}\n{\"ste");
  keep_lines_up_to_step(posix_io(), path, 2);
  CHECK(content(path) == kept);
  keep_lines_up_to_step(posix_io(), path, 5);
  CHECK(content(path) == kept);
  keep_lines_up_to_step(posix_io(), directory.file("none"), 5);
  CHECK_THROWS_AS(content(directory.file("none")), Error);
}

TEST_CASE("a metrics line that cannot be written is an error") {
  const TemporaryDirectory directory;
  FailingIo io(1);
  JsonLines lines(io, directory.file("metrics.jsonl"));
  CHECK_THROWS_AS(lines.add({{"step", 1}}), RunError);
}

}  // namespace dsmoe
