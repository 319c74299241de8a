#include "data/token_shard.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <numeric>

#include "common/error.h"
#include "data/token_shard_writer.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Starts = std::vector<int64_t>;

// starts  of documents, rising
ShardRecord write_token_shard(Io& io,
                              const std::string& path,
                              const std::vector<int32_t>& ids,
                              int64_t vocab_size,
                              const Starts& starts = {}) {
  TokenShardWriter writer(io, path, vocab_size, "bytes-257");
  auto next = starts.begin();
  for (const int32_t id : ids) {
    if (next != starts.end() && *next == writer.n_tokens()) {
      writer.start_document();
      ++next;
    }
    writer.add({&id, 1});
  }
  return writer.finish();
}

Starts starts_in(const TokenShard& shard, int64_t begin, int64_t end) {
  Starts starts;
  shard.append_document_starts(begin, end, 100, starts);
  return starts;
}

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

TEST_CASE("token shards: the bytes match the description in the header file") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  write_token_shard(posix_io(), path, {258, 1}, 300, {1});
  const auto bytes = read_file(posix_io(), path, 100);
  REQUIRE(bytes.size() == 64 + 2 * 2 + 8);
  CHECK(bytes.substr(0, 12) == std::string("DSMT\2\0\0\0\2\0\0\0", 12));
  CHECK(bytes.substr(16, 8) == std::string("\x2C\1\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(24, 8) == std::string("\2\0\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(40, 8) == std::string("\1\0\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(64) == std::string("\2\1\1\0\1\0\0\0\0\0\0\0", 12));
}

TEST_CASE("token shards: return the document starts of any range, and the tokenizer's name") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  const std::vector<int32_t> ids(50, 7);
  const auto record = write_token_shard(posix_io(), path, ids, 257, {3, 4, 10, 49});
  CHECK(record.n_tokens == 50);
  CHECK(record.n_documents == 4);
  const TokenShard shard(path);
  shard.verify();
  CHECK(shard.n_documents() == 4);
  CHECK(shard.payload_hash() == record.hash);
  CHECK(shard.made_by("bytes-257"));
  CHECK_FALSE(shard.made_by("bytes-258"));
  CHECK(starts_in(shard, 0, 50) == Starts{103, 104, 110, 149});
  CHECK(starts_in(shard, 3, 4) == Starts{103});
  CHECK(starts_in(shard, 4, 10) == Starts{104});
  CHECK(starts_in(shard, 5, 10).empty());
  CHECK(starts_in(shard, 11, 500) == Starts{149});
  CHECK(shard.documents_before(3) == 0);
  CHECK(shard.documents_before(4) == 1);
  CHECK(shard.documents_before(10) == 2);
  CHECK(shard.documents_before(50) == 4);
}

TEST_CASE("token shards: refuse another version when opened, ids beyond the vocabulary when read") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  write_token_shard(posix_io(), path, {5, 299, 7}, 300);
  const auto whole = read_file(posix_io(), path, 1000);
  const auto write_header = [&](std::string header) {
    header.resize(56);
    put_number(header, hash_number(header), 8);
    write_file(posix_io(), path, header + whole.substr(64));
  };
  auto old = whole.substr(0, 64);
  old[4] = 1;
  write_header(old);
  CHECK_THROWS_WITH(TokenShard(path), Contains("expected version 2, got 1"));

  auto header = decode_shard_header(whole.substr(0, 64), path);
  header.vocab_size = 299;
  write_header(encode_shard_header(header));
  const TokenShard shard(path);
  std::vector<int32_t> id(1);
  shard.copy(0, id);
  CHECK(id[0] == 5);
  CHECK_THROWS_WITH(shard.copy(1, id), Contains("[0, 299), got 299 at token 1"));
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
  CHECK_THROWS_WITH(TokenShard(path), Contains("magic"));  // without its header
  bool succeeded = false;
  for (int first = 1; !succeeded; ++first) {
    REQUIRE(first < 50);
    FailingIo io(first);
    try {
      write_token_shard(io, path, {1}, 257, {0});
      succeeded = true;
    } catch (const RunError&) {
    }
  }
  CHECK(read_shard(path) == std::vector<int32_t>{1});
}

TEST_CASE("token shards: every flipped bit is found, in the header when opened") {
  const TemporaryDirectory directory;
  const auto path = directory.file("shard.bin");
  write_token_shard(posix_io(), path, {5, 6, 7, 200}, 257, {0, 2});
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
  write_token_shard(posix_io(), path, {5, 6, 7, 200}, 257, {0, 2});
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
  CHECK_THROWS_WITH(starts_in(open_before, 0, 4), Contains("became shorter"));
  CHECK_THROWS_WITH(TokenShard(directory.file("none")), Contains("none"));
}

}  // namespace dsmoe
