#include "train/tensorboard.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

// The masked checksum of the record format, written out again.
uint32_t masked(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class Value>
Value read_at(const std::string& bytes, size_t at) {
  Value value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

std::vector<std::string> read_records(const std::string& bytes) {
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = read_at<uint64_t>(bytes, at);
    CHECK(read_at<uint32_t>(bytes, at + 8) == masked(bytes.substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    CHECK(read_at<uint32_t>(bytes, at + 12 + length) == masked(records.back()));
    at += 16 + length;
  }
  return records;
}

// What follows the key and the eight bytes of the wall time.
std::vector<int> bytes_after_time(const std::string& record) {
  std::vector<int> bytes;
  for (size_t i = 9; i < record.size(); ++i) bytes.push_back(static_cast<unsigned char>(record[i]));
  return bytes;
}

TEST_CASE("crc32c: gives the published check value", "[train][tensorboard]") {
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);  // RFC 3720, B.4
}

TEST_CASE("TensorboardWriter: records are framed and encoded as TensorBoard reads them",
          "[train][tensorboard]") {
  const TemporaryDirectory directory;
  {
    TensorboardWriter writer(posix_io(), directory.file("events"), 7);
    writer.add(300, {{"loss", 1.5}});
  }
  std::vector<std::string> files;
  for (const auto& item : std::filesystem::directory_iterator(directory.file("events"))) {
    files.push_back(item.path().string());
  }
  REQUIRE(files.size() == 1);
  CHECK(files[0].find("tfevents") != std::string::npos);
  const auto records = read_records(read_file(posix_io(), files[0], 1 << 20));
  REQUIRE(records.size() == 3);
  CHECK(bytes_after_time(records[0]) ==
        std::vector<int>{
            0x1a, 0x0d, 'b', 'r', 'a', 'i', 'n', '.', 'E', 'v', 'e', 'n', 't', ':', '2'});
  // Step 8; session_log {status START}, as TensorBoard's own classes write it.
  CHECK(bytes_after_time(records[1]) == std::vector<int>{0x10, 0x08, 0x3a, 0x02, 0x08, 0x01});
  // Step 300 as varint; summary {value {tag "loss", simple_value 1.5}}.
  CHECK(bytes_after_time(records[2]) == std::vector<int>{0x10,
                                                         0xac,
                                                         0x02,
                                                         0x2a,
                                                         0x0d,
                                                         0x0a,
                                                         0x0b,
                                                         0x0a,
                                                         0x04,
                                                         'l',
                                                         'o',
                                                         's',
                                                         's',
                                                         0x15,
                                                         0x00,
                                                         0x00,
                                                         0xc0,
                                                         0x3f});
}

}  // namespace
}  // namespace dsmoe
