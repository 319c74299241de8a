#include "formats/compressed_file.h"

#include <zlib.h>
#include <zstd.h>

#include <catch2/catch.hpp>
#include <vector>

#include "common/error.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

std::string gzip(const std::string& text) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string input = text;
  std::string bytes(deflateBound(&stream, input.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_out = static_cast<uInt>(bytes.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  bytes.resize(stream.total_out);
  deflateEnd(&stream);
  return bytes;
}

std::string zstd(const std::string& text) {
  std::string bytes(ZSTD_compressBound(text.size()), '\0');
  bytes.resize(ZSTD_compress(bytes.data(), bytes.size(), text.data(), text.size(), 3));
  return bytes;
}

std::string read_back(const std::string& bytes, size_t piece) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("f"), bytes);
  CompressedFile file(posix_io(), directory.file("f"));
  std::string text;
  std::vector<char> buffer(piece);
  while (const size_t n = file.read(buffer.data(), piece)) text.append(buffer.data(), n);
  CHECK(file.file_position() == bytes.size());
  CHECK(file.file_bytes() == bytes.size());
  return text;
}

// Above one input buffer, and hard to compress.
std::string long_text() {
  std::string text;
  for (uint64_t i = 1; text.size() < 1'500'000; ++i) text += std::to_string(i * i * 2654435761u);
  return text;
}

}  // namespace

TEST_CASE("compressed files: plain, gzip and zstd give the same content in reads of any size") {
  for (const std::string& text : {std::string(), std::string("a"), long_text()}) {
    for (const size_t piece : {1 + text.size() / 997, size_t{1} << 20}) {
      CHECK((read_back(text, piece) == text));
      CHECK((read_back(gzip(text), piece) == text));
      CHECK((read_back(zstd(text), piece) == text));
    }
  }
}

TEST_CASE("compressed files: consecutive members are one content") {
  CHECK(read_back(gzip("one ") + gzip("") + gzip("two"), 2) == "one two");
  CHECK(read_back(zstd("one ") + zstd("") + zstd("two"), 2) == "one two");
}

TEST_CASE("compressed files: every cut is found, and damage where a checksum covers it") {
  const std::string text = long_text().substr(0, 3000);
  for (const std::string& whole : {gzip(text), zstd(text)}) {
    for (size_t size = 4; size < whole.size(); ++size) {
      REQUIRE_THROWS_WITH(read_back(whole.substr(0, size), 512), Contains("ends early"));
    }
  }
  auto damaged = gzip(text);
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 4);
  CHECK_THROWS_WITH(read_back(damaged, 512), Contains("damaged near byte"));
  CHECK_THROWS_WITH(read_back(gzip(text) + "tail", 512), Contains("damaged near byte"));
  CHECK_THROWS_WITH(read_back(zstd(text) + "tail", 512), Contains("damaged near byte"));
}

TEST_CASE("compressed files: anything but a regular file is refused by name") {
  CHECK_THROWS_WITH(CompressedFile(posix_io(), "/no/such/file"), Contains("/no/such/file"));
  CHECK_THROWS_WITH(CompressedFile(posix_io(), "/tmp"), Contains("regular file"));
}

}  // namespace dsmoe
