#include "data/token_shard.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <numeric>

#include "common/error.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

std::vector<int32_t> read_shard(const std::string& path) {
  const TokenShard shard(path);
  shard.verify();
  std::vector<int32_t> ids(static_cast<size_t>(shard.size()));
  shard.copy(0, ids);
  return ids;
}

}  // namespace

TEST_CASE("token shards: ids come back from 2 and from 4 bytes each") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  for (const int64_t vocab_size : {257, 65536, 65537, 2147483647}) {
    const std::vector<int32_t> ids = {0, 1, 255, 256, static_cast<int32_t>(vocab_size - 1)};
    write_token_shard(posix_io(), path, ids, vocab_size);
    CHECK(std::filesystem::file_size(path) == 64 + ids.size() * (vocab_size <= 65536 ? 2 : 4));
    CHECK(read_shard(path) == ids);
  }
}

TEST_CASE("token shards: the bytes are those of the header's description") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  write_token_shard(posix_io(), path, {258, 1}, 300);
  const auto bytes = read_file(posix_io(), path, 100);
  REQUIRE(bytes.size() == 68);
  CHECK(bytes.substr(0, 12) == std::string("DSMT\1\0\0\0\2\0\0\0", 12));
  CHECK(bytes.substr(16, 8) == std::string("\x2C\1\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(24, 8) == std::string("\2\0\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(64) == std::string("\2\1\1\0", 4));
}

TEST_CASE("token shards: any part can be copied, nothing outside") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  std::vector<int32_t> ids(1000);
  std::iota(ids.begin(), ids.end(), 0);
  write_token_shard(posix_io(), path, ids, 1000);
  const TokenShard shard(path);
  std::vector<int32_t> part(10);
  shard.copy(990, part);
  CHECK(part == std::vector<int32_t>(ids.end() - 10, ids.end()));
  CHECK_THROWS_WITH(shard.copy(991, part), Contains("10 tokens from 991"));
  CHECK_THROWS_AS(shard.copy(-1, part), Error);
  CHECK_THROWS_AS(shard.copy(std::numeric_limits<int64_t>::max(), part), Error);
}

TEST_CASE("token shards: an id outside the vocabulary is never written") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  CHECK_THROWS_WITH(write_token_shard(posix_io(), path, {1, 257}, 257), Contains("got 257"));
  CHECK_THROWS_WITH(write_token_shard(posix_io(), path, {-1}, 257), Contains("got -1"));
  CHECK_FALSE(std::filesystem::exists(path));
  FailingIo io(2);
  CHECK_THROWS_AS(write_token_shard(io, path, {1}, 257), RunError);
}

TEST_CASE("token shards: every flipped bit is found, in the header when opened") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  write_token_shard(posix_io(), path, {5, 6, 7, 200}, 257);
  const auto whole = read_file(posix_io(), path, 1000);
  size_t n_missed = 0;
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    auto altered = whole;
    altered[bit / 8] = static_cast<char>(altered[bit / 8] ^ (1 << bit % 8));
    write_file(posix_io(), path, altered);
    try {
      const TokenShard shard(path);
      if (bit < 64 * 8) ++n_missed;
      shard.verify();
      ++n_missed;
    } catch (const Error& error) {
      if (std::string(error.what()).find("shard.bin") == std::string::npos) ++n_missed;
    }
  }
  CHECK(n_missed == 0);
}

TEST_CASE("token shards: truncation is found when opened and when it happens later") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  write_token_shard(posix_io(), path, {5, 6, 7, 200}, 257);
  const auto whole = read_file(posix_io(), path, 1000);
  const TokenShard open_before(path);
  for (size_t size = 0; size < whole.size(); ++size) {
    std::filesystem::resize_file(path, size);
    CHECK_THROWS_AS(TokenShard(path), Error);
    write_file(posix_io(), path, whole);
  }
  std::filesystem::resize_file(path, 70);
  std::vector<int32_t> ids(1);
  CHECK_THROWS_WITH(open_before.copy(0, ids), Contains("became shorter"));
  CHECK_THROWS_WITH(TokenShard(directory.file("none")), Contains("none"));
}

}  // namespace dsmoe
