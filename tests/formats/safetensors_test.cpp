#include "formats/safetensors.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "common/error.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

std::string with_length(const std::string& header) {
  const uint64_t size = header.size();
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));
  return bytes + header;
}

std::string entry(const std::string& name,
                  const std::string& dtype,
                  const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

// Returns the error of opening a file of these bytes; empty if there is none.
std::string complaint(const std::string& bytes) {
  const TemporaryDirectory directory;
  const auto path = directory.file("x.safetensors");
  write_file(posix_io(), path, bytes);
  try {
    const SafetensorsFile file(posix_io(), path);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a file written by hand after the format's specification is read") {
  const TemporaryDirectory directory;
  const auto path = directory.file("x.safetensors");
  const std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," +
                             entry("b", "F32", "[1,2]", "[2,10]") + "," +
                             entry("a", "BF16", "[]", "[0,2]") + "}   ";
  const std::string data("\x80\x3f\0\0\x80\x3f\0\0\0\x40", 10);  // bf16 1, float32 1 and 2
  write_file(posix_io(), path, with_length(header) + data);

  const SafetensorsFile file(posix_io(), path);
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.tensors()[0].name == "a");
  CHECK(file.tensors()[0].shape.empty());
  CHECK(file.metadata().at("format") == "pt");
  const auto* b = file.find("b");
  REQUIRE(b != nullptr);
  CHECK(b->shape == std::vector<int64_t>{1, 2});
  float values[2] = {};
  file.read(*b, values);
  CHECK(values[0] == 1.0f);
  CHECK(values[1] == 2.0f);
  CHECK(file.find("c") == nullptr);
}

TEST_CASE("written tensors are read back, aligned, in one order") {
  const TemporaryDirectory directory;
  const auto path = directory.file("x.safetensors");
  std::vector<float> large(32);
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<float>(i) / 3;
  const std::vector<int64_t> odd = {-1, 1LL << 40, 7};
  const std::string text = "a name with \" and \\ and \xC3\xA4";
  const auto written = write_safetensors(posix_io(),
                                         path,
                                         {{"step", "3"}},
                                         {{"odd", "I64", {3}, odd.data()},
                                          {text, "F32", {4, 8}, large.data()},
                                          {"none", "F16", {0, 5}, nullptr}});

  CHECK(read_file(posix_io(), path, 1 << 20).size() == written.size_bytes);
  const SafetensorsFile file(posix_io(), path);
  REQUIRE(file.tensors().size() == 3);
  CHECK(file.metadata().at("step") == "3");
  std::vector<float> floats(32);
  file.read(*file.find(text), floats.data());
  CHECK(floats == large);
  std::vector<int64_t> integers(3);
  file.read(*file.find("odd"), integers.data());
  CHECK(integers == odd);
  CHECK(file.find("none")->begin == file.find("none")->end);
  // The large one lies at a multiple of 64 bytes, before the odd one.
  CHECK(file.find(text)->begin == 0);
  CHECK((written.size_bytes - 32 * 4 - 3 * 8) % 64 == 0);

  const auto other = directory.file("y.safetensors");
  const auto again = write_safetensors(posix_io(),
                                       other,
                                       {{"step", "3"}},
                                       {{"none", "F16", {0, 5}, nullptr},
                                        {text, "F32", {4, 8}, large.data()},
                                        {"odd", "I64", {3}, odd.data()}});
  CHECK(again.hash == written.hash);
}

TEST_CASE("a tensor checksum covers name, dtype, shape and bytes") {
  const float values[2] = {1, 2};
  const float others[2] = {1, 3};
  const TensorEntry entry{"a", "F32", {2}, 0, 8};
  const auto checksum = tensor_checksum(entry, values);
  CHECK(tensor_checksum(entry, others) != checksum);
  CHECK(tensor_checksum({"b", "F32", {2}, 0, 8}, values) != checksum);
  CHECK(tensor_checksum({"a", "I32", {2}, 0, 8}, values) != checksum);
  CHECK(tensor_checksum({"a", "F32", {1, 2}, 0, 8}, values) != checksum);
  CHECK(tensor_checksum({"a", "F32", {2}, 64, 72}, values) == checksum);  // the place may change
}

TEST_CASE("malformed safetensors files are refused by name") {
  const std::string good = "{" + entry("a", "F32", "[2]", "[0,8]") + "}";
  REQUIRE(complaint(with_length(good) + std::string(8, 'x')).empty());

  CHECK_THAT(complaint(""), Contains("expected a safetensors header, got 0 bytes"));
  CHECK_THAT(complaint("1234567"), Contains("got 7 bytes"));
  CHECK_THAT(complaint(with_length(good).substr(0, 20)), Contains("is too long"));
  CHECK_THAT(complaint(std::string(8, '\xFF') + "{}"), Contains("is too long"));
  CHECK_THAT(complaint(with_length("")), Contains("not JSON"));
  CHECK_THAT(complaint(with_length("[]")), Contains("a JSON object as header"));
  CHECK_THAT(complaint(with_length(" {}")), Contains("a JSON object as header"));
  CHECK_THAT(complaint(with_length(good) + std::string(7, 'x')), Contains("expected 8 bytes"));
  CHECK_THAT(complaint(with_length(good) + std::string(9, 'x')), Contains("expected 8 bytes"));

  const auto of = [](const std::string& entries) {
    return complaint(with_length("{" + entries + "}") + std::string(16, 'x'));
  };
  CHECK_THAT(of(entry("a", "F32", "[2]", "[0,8]")), Contains("expected 8 bytes of tensors"));
  CHECK_THAT(of(entry("a", "F33", "[4]", "[0,16]")), Contains("dtype, got 'F33'"));
  CHECK_THAT(of(entry("a", "F32", "[-4]", "[0,16]")), Contains("'a'"));
  CHECK_THAT(of(entry("a", "F32", "[4.0]", "[0,16]")), Contains("'a'"));
  CHECK_THAT(of(entry("a", "F32", "4", "[0,16]")), Contains("'a'"));
  CHECK_THAT(of(entry("a", "F32", "[4]", "[16,0]")), Contains("'a'"));
  CHECK_THAT(of(entry("a", "F32", "[4]", "[0,16,16]")), Contains("'a'"));
  CHECK_THAT(of(entry("a", "F32", "[5]", "[0,16]")), Contains("expected bytes 0 to 20"));
  CHECK_THAT(of(entry("a", "F32", "[2]", "[8,16]")), Contains("expected bytes 0 to 8"));
  CHECK_THAT(of(entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "F32", "[3]", "[4,16]")),
             Contains("'b': expected bytes 8 to 20"));
  CHECK_THAT(of(entry("a", "F32", "[2]", "[0,8]") + "," + entry("a", "F32", "[2]", "[8,16]")),
             Contains("key 'a' appears twice"));
  CHECK_THAT(of(entry("a", "F32", "[4294967296,4294967296,4]", "[0,16]")),
             Contains("out of range"));
  // 2^62 * 4 bytes wrap to 0 in 64 bits.
  CHECK_THAT(of(entry("a", "F32", "[4611686018427387904]", "[0,0]")), Contains("out of range"));
  CHECK_THAT(of("\"a\":{\"dtype\":\"F32\",\"shape\":[4]}"), Contains("'a': expected an object"));
  CHECK_THAT(of("\"__metadata__\":{\"x\":1}"),
             Contains("expected 'x' of __metadata__ to be a text"));
  CHECK_THAT(of("\"__metadata__\":[]"), Contains("expected __metadata__ to be an object"));
}

TEST_CASE("a safetensors file is a regular file") {
  const TemporaryDirectory directory;
  CHECK_THROWS_WITH(SafetensorsFile(posix_io(), directory.file("none")),
                    Contains("cannot be open"));
  CHECK_THROWS_WITH(SafetensorsFile(posix_io(), directory.file("")), Contains("a regular file"));
}

TEST_CASE("writing refuses a name twice and reports every failed write") {
  const TemporaryDirectory directory;
  const float value = 1;
  const auto path = directory.file("x.safetensors");
  const TensorBytes tensor{"a", "F32", {}, &value};
  CHECK_THROWS_WITH(write_safetensors(posix_io(), path, {}, {tensor, tensor}),
                    Contains("'a' twice"));
  int n_failures = 0;
  for (int first = 1; first < 100; ++first) {
    FailingIo io(first);
    try {
      write_safetensors(io, path, {}, {tensor});
      CHECK_FALSE(io.has_failed());
      break;
    } catch (const RunError& error) {
      CHECK_THAT(error.what(), Contains("x.safetensors"));
      ++n_failures;
    }
  }
  CHECK(n_failures > 3);
}

}  // namespace dsmoe
