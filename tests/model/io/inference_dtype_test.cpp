#include "model/io/inference_dtype.h"

#include <catch2/catch.hpp>

#include "support/temporary_directory.h"

namespace dsmoe {

TEST_CASE("default_dtype: bfloat16 for a model trained in it on a CPU that is fast at it") {
  CHECK(default_dtype("bfloat16", true).format == PackedFormat::kBfloat16);
  CHECK(default_dtype("bfloat16", false).format == PackedFormat::kFloat32);
  for (const bool fast : {true, false}) {
    CHECK(default_dtype("float32", fast).format == PackedFormat::kFloat32);
    CHECK(default_dtype("auto", fast).format == PackedFormat::kFloat32);
    CHECK(default_dtype("", fast).format == PackedFormat::kFloat32);
  }
}

TEST_CASE("default_dtype: says why float32 was taken for a model trained in bfloat16") {
  CHECK(default_dtype("bfloat16", true).reason == "as in training");
  CHECK(default_dtype("float32", false).reason == "as in training");
  CHECK(default_dtype("bfloat16", false).reason.find("AVX512-BF16") != std::string::npos);
}

TEST_CASE("read_trained_dtype: the key of a trained checkpoint, nothing of a converted one") {
  const TemporaryDirectory directory;
  auto& io = posix_io();
  const auto read = [&](const std::string& text) {
    write_file(io, directory.file("config.json"), text);
    return read_trained_dtype(io, directory.file("."));
  };
  CHECK(read(R"({"model": {}, "train": {"compute_dtype": "bfloat16"}})") == "bfloat16");
  CHECK(read(R"({"model": {}})") == "");
  CHECK(read(R"({"model": {}, "train": {}})") == "");
}

}  // namespace dsmoe
