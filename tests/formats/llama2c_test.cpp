#include "formats/llama2c.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "common/error.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

// dim 4, hidden 6, 2 layers, 2 heads over 1 key/value head, 5 ids, context 3; values 0, 1, 2 ...
std::string make_file(int32_t vocab_size = 5, int64_t extra_bytes = 0) {
  const std::vector<int32_t> header{4, 6, 2, 2, 1, vocab_size, 3};
  const int64_t layer = 4 + 16 + 8 + 8 + 16 + 4 + 24 + 24 + 24;
  const int64_t n_floats = 20 + 2 * layer + 4 + 3 * 2 + (vocab_size < 0 ? 20 : 0);
  std::string bytes(reinterpret_cast<const char*>(header.data()), 28);
  for (int64_t i = 0; i < n_floats; ++i) {
    const auto value = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&value), 4);
  }
  bytes.resize(static_cast<size_t>(static_cast<int64_t>(bytes.size()) + extra_bytes));
  return bytes;
}

std::string refusal(const std::string& bytes) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("m.bin"), bytes);
  try {
    const Llama2cFile file(posix_io(), directory.file("m.bin"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string with_header(size_t index, int32_t value) {
  auto bytes = make_file();
  std::memcpy(bytes.data() + 4 * index, &value, 4);
  return bytes;
}

std::vector<float> read_tensor(const Llama2cFile& file, const std::string& name) {
  for (const auto& entry : file.tensors()) {
    if (entry.name != name) continue;
    std::vector<float> values((entry.end - entry.begin) / 4);
    file.read(entry, values.data());
    return values;
  }
  return {};
}

TEST_CASE("Llama2cFile: every tensor is at the place that the format gives") {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("m.bin"), make_file());
  const Llama2cFile file(posix_io(), directory.file("m.bin"));
  CHECK(file.header().head_dim() == 2);
  CHECK(file.header().tied);
  CHECK(file.tensors().size() == 2 + 2 * 9);
  // 20 of the embedding, then per kind both layers: 8 norms, 32 of wq, 16 of wk, 16 of wv, ...
  CHECK(read_tensor(file, "model.layers.1.input_layernorm.weight") ==
        std::vector<float>{24, 25, 26, 27});
  CHECK(read_tensor(file, "model.layers.0.self_attn.k_proj.weight").front() == 60);
  CHECK(read_tensor(file, "model.layers.1.self_attn.v_proj.weight").front() == 84);
  CHECK(read_tensor(file, "model.layers.0.mlp.gate_proj.weight").front() == 132);
  CHECK(read_tensor(file, "model.layers.0.mlp.down_proj.weight").front() == 180);
  CHECK(read_tensor(file, "model.layers.1.mlp.up_proj.weight").back() == 275);
  CHECK(read_tensor(file, "model.norm.weight") == std::vector<float>{276, 277, 278, 279});
}

// Heads of 8 over a context of 3; the tables are of `theta`, or zeros.
std::string file_with_tables(double theta) {
  const std::vector<int32_t> header{16, 6, 1, 2, 1, 5, 3};
  const int64_t layer = 16 + 16 * 16 + 2 * 8 * 16 + 16 * 16 + 16 + 3 * 6 * 16;
  std::string bytes(reinterpret_cast<const char*>(header.data()), 28);
  const auto add = [&](double value) {
    const auto number = static_cast<float>(value);
    bytes.append(reinterpret_cast<const char*>(&number), 4);
  };
  for (int64_t i = 0; i < 5 * 16 + layer + 16; ++i) add(0.5);
  for (const bool is_sine : {false, true}) {
    for (int position = 0; position < 3; ++position) {
      for (int i = 0; i < 4; ++i) {
        // As llama2.c computes it, in float32.
        const float frequency =
            1.0f / std::pow(static_cast<float>(theta), static_cast<float>(i) / 4.0f);
        const float angle = static_cast<float>(position) * frequency;
        add(theta == 0 ? 0.0f : is_sine ? std::sin(angle) : std::cos(angle));
      }
    }
  }
  return bytes;
}

TEST_CASE("Llama2cFile: finds the base of the rotary tables, or returns none") {
  const TemporaryDirectory directory;
  const auto theta_of = [&](const std::string& bytes) {
    write_file(posix_io(), directory.file("m.bin"), bytes);
    return Llama2cFile(posix_io(), directory.file("m.bin")).rotary_theta();
  };
  for (const double theta : {10000.0, 500000.0, 1e6, 500.0, 12345.0}) {
    CAPTURE(theta);
    CHECK(theta_of(file_with_tables(theta)) == theta);
  }
  CHECK_FALSE(theta_of(file_with_tables(0)));
  CHECK_FALSE(theta_of(make_file()));  // heads of 2
  auto other = file_with_tables(10000.0);
  const float wrong = 0.25f;
  std::memcpy(other.data() + other.size() - 4 * 6, &wrong, 4);  // of position 1, in the middle
  CHECK_FALSE(theta_of(other));
}

TEST_CASE("Llama2cFile: a negative vocabulary size means a separate head after the tables") {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("m.bin"), make_file(-5));
  const Llama2cFile file(posix_io(), directory.file("m.bin"));
  CHECK_FALSE(file.header().tied);
  CHECK(file.header().vocab_size == 5);
  CHECK(read_tensor(file, "lm_head.weight").front() == 286);
}

TEST_CASE("Llama2cFile: a wrong header and a wrong file size are refused") {
  CHECK(refusal(make_file()).empty());
  CHECK_THAT(refusal(make_file(5, -4)), Contains("expected 1172 bytes"));
  CHECK_THAT(refusal(make_file(5, 1)), Contains("got 1173"));
  CHECK_THAT(refusal("short"), Contains("got 5 bytes"));
  CHECK_THAT(refusal(with_header(0, 0)), Contains("version 0"));
  CHECK_THAT(refusal(with_header(2, -1)), Contains("version 0"));
  CHECK_THAT(refusal(with_header(5, -2147483647 - 1)), Contains("version 0"));
  CHECK_THAT(refusal(with_header(3, 3)), Contains("do not fit"));
  CHECK_THAT(refusal(with_header(4, 2147483647)), Contains("version 0"));
  CHECK_THAT(refusal(with_header(2, 5000)), Contains("do not fit"));
  CHECK_THAT(refusal(with_header(2, 4096)), Contains("bytes of a model"));
  // 2^24 wide and long everywhere: more bytes than 63 bits count.
  auto bytes = make_file();
  const std::vector<int32_t> huge{1 << 24, 1 << 24, 4096, 2, 1, 1 << 24, 1 << 24};
  std::memcpy(bytes.data(), huge.data(), 28);
  CHECK_THAT(refusal(bytes), Contains("9223372036854775807"));
  CHECK_THROWS_AS(Llama2cFile(posix_io(), "/nonexistent.bin"), Error);
  CHECK_THROWS_AS(Llama2cFile(posix_io(), "/tmp"), Error);
}

}  // namespace
}  // namespace dsmoe
