#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>

#include "common/error.h"
#include "formats/gguf_reader.h"
#include "formats/gguf_writer.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

const std::vector<GgufTensor> kTensors{{"a", GgufType::kF32, {2, 3}},
                                       {"b", GgufType::kBf16, {5}},
                                       {"c", GgufType::kF16, {1, 2, 2}}};
const std::vector<float> kA{1, 2, 3, 4, 5, 6};
const std::vector<uint16_t> kB{1, 2, 3, 4, 5};
const std::vector<uint16_t> kC{6, 7, 8, 9};

GgufMetadata small_metadata() {
  return {{"general.architecture", std::string("olmoe")},
          {"count", uint32_t{7}},
          {"eps", 0.5F},
          {"flag", true},
          {"words", std::vector<std::string>{"x", "yz"}},
          {"scores", std::vector<float>{0.25F, -1.0F}},
          {"types", std::vector<int32_t>{1, -2, 3}}};
}

void write_small(Io& io, const std::string& path) {
  GgufWriter writer(io, path, small_metadata(), kTensors);
  writer.add(kA.data());
  writer.add(kB.data());
  writer.add(kC.data());
  writer.finish();
}

std::string small_file() {
  const TemporaryDirectory directory;
  write_small(posix_io(), directory.file("a.gguf"));
  return read_file(posix_io(), directory.file("a.gguf"), 1 << 20);
}

std::string refusal(const std::string& bytes) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("a.gguf"), bytes);
  try {
    const GgufFile file(posix_io(), directory.file("a.gguf"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

template <class T>
T number_at(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

}  // namespace

TEST_CASE("GgufWriter: the bytes match the description of the format", "[formats]") {
  const TemporaryDirectory directory;
  GgufWriter writer(posix_io(),
                    directory.file("a.gguf"),
                    {{"k", uint32_t{7}}},
                    {{"t", GgufType::kF32, {2, 3}}, {"u", GgufType::kF16, {1}}});
  writer.add(kA.data());
  writer.add(kB.data());
  writer.finish();
  const auto bytes = read_file(posix_io(), directory.file("a.gguf"), 1 << 20);
  CHECK(bytes.substr(0, 4) == "GGUF");
  CHECK(number_at<uint32_t>(bytes, 4) == 3);
  CHECK(number_at<uint64_t>(bytes, 8) == 2);   // tensors
  CHECK(number_at<uint64_t>(bytes, 16) == 1);  // values
  CHECK(number_at<uint64_t>(bytes, 24) == 1);  // length of "k"
  CHECK(bytes[32] == 'k');
  CHECK(number_at<uint32_t>(bytes, 33) == 4);  // uint32
  CHECK(number_at<uint32_t>(bytes, 37) == 7);
  CHECK(number_at<uint64_t>(bytes, 41) == 1);  // length of "t"
  CHECK(bytes[49] == 't');
  CHECK(number_at<uint32_t>(bytes, 50) == 2);  // dimensions, innermost first
  CHECK(number_at<uint64_t>(bytes, 54) == 3);
  CHECK(number_at<uint64_t>(bytes, 62) == 2);
  CHECK(number_at<uint32_t>(bytes, 70) == 0);   // float32
  CHECK(number_at<uint64_t>(bytes, 74) == 0);   // offset of its data
  CHECK(number_at<uint32_t>(bytes, 91) == 1);   // dimensions of "u"
  CHECK(number_at<uint32_t>(bytes, 103) == 1);  // float16
  CHECK(number_at<uint64_t>(bytes, 107) == 32);
  // 115 bytes of header are padded to 128; 24 bytes of "t" to 32.
  CHECK(number_at<float>(bytes, 128 + 20) == 6.0F);
  CHECK(number_at<uint16_t>(bytes, 160) == 1);
  CHECK(bytes.size() == 192);
}

TEST_CASE("GgufFile: reads back what GgufWriter wrote", "[formats]") {
  const TemporaryDirectory directory;
  write_small(posix_io(), directory.file("a.gguf"));
  const GgufFile file(posix_io(), directory.file("a.gguf"));
  CHECK(file.metadata() == small_metadata());
  REQUIRE(file.tensors().size() == 3);
  CHECK(file.find_tensor("b")->shape == std::vector<int64_t>{5});
  CHECK(file.find_tensor("c")->shape == std::vector<int64_t>{1, 2, 2});
  CHECK(file.find_tensor("d") == nullptr);
  CHECK(file.find_value("d") == nullptr);
  std::vector<uint16_t> c(4);
  file.read(*file.find_tensor("c"), c.data());
  CHECK(c == kC);
}

TEST_CASE("GgufFile: a header cut anywhere is refused", "[formats]") {
  const auto bytes = small_file();
  for (size_t size = 0; size < bytes.size(); ++size) {
    INFO(size);
    // The last tensor's padding may be missing: the format allows it.
    CHECK(refusal(bytes.substr(0, size)).empty() == (size >= bytes.size() - 24));
  }
}

TEST_CASE("GgufFile: counts, lengths and offsets that do not fit are refused", "[formats]") {
  const auto bytes = small_file();
  const auto changed = [&](size_t offset, uint64_t value, size_t n_bytes) {
    auto copy = bytes;
    std::memcpy(copy.data() + offset, &value, n_bytes);
    return refusal(copy);
  };
  CHECK_THAT(changed(0, 'X', 1), Catch::Contains("expected a GGUF file"));
  CHECK_THAT(changed(4, 4, 4), Catch::Contains("expected a GGUF file"));
  CHECK_THAT(changed(8, ~uint64_t{0}, 8), Catch::Contains("do not fit"));
  CHECK_THAT(changed(16, ~uint64_t{0}, 8), Catch::Contains("do not fit"));
  CHECK_THAT(changed(24, ~uint64_t{0}, 8), Catch::Contains("more bytes of header"));
  const size_t a = bytes.find(std::string("\1\0\0\0\0\0\0\0a", 9)) + 9;
  CHECK_THAT(changed(a, 5, 4), Catch::Contains("at most 4 dimensions"));
  CHECK_THAT(changed(a + 4, uint64_t{1} << 62, 8), Catch::Contains("larger than the file"));
  CHECK_THAT(changed(a + 20, 99, 4), Catch::Contains("tensors of type 99"));
  CHECK_THAT(changed(a + 24, 8, 8), Catch::Contains("lies outside the file"));
  CHECK_THAT(changed(a + 24, 1 << 20, 8), Catch::Contains("lies outside the file"));
  CHECK_THAT(changed(a - 1, 'b', 1), Catch::Contains("expected 'b' once, got it twice"));
}

TEST_CASE("GgufWriter: tensors that are missing and failed writes are errors", "[formats]") {
  const TemporaryDirectory directory;
  {
    GgufWriter writer(posix_io(), directory.file("a.gguf"), small_metadata(), kTensors);
    writer.add(kA.data());
    CHECK_THROWS_WITH(writer.finish(), Catch::Contains("expected 3 tensors, got 1"));
  }
  bool succeeded = false;
  for (int i = 1; !succeeded; ++i) {
    REQUIRE(i < 100);
    FailingIo io(i);
    try {
      write_small(io, directory.file("a.gguf"));
      succeeded = true;
      CHECK_FALSE(io.has_failed());
    } catch (const RunError& error) {
      CHECK_THAT(error.what(), Catch::Contains("a.gguf"));
    }
  }
}

TEST_CASE("GgufWriter: a name given twice is refused", "[formats]") {
  const TemporaryDirectory directory;
  CHECK_THROWS_WITH(GgufWriter(posix_io(), directory.file("a"), {}, {{"a", {}, {}}, {"a", {}, {}}}),
                    Catch::Contains("'a' once"));
}

}  // namespace dsmoe
