#include "formats/checkpoint_manifest.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <random>

#include "common/error.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

// A small checkpoint: two safetensors files with tensors of equal size, a config, a manifest.
struct Checkpoint {
  TemporaryDirectory directory;

  Checkpoint() {
    std::vector<float> values(40);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    CheckpointManifest manifest;
    manifest.run_id = "run-1";
    manifest.step = 20;
    for (const std::string name : {"model.safetensors", "optimizer.safetensors"}) {
      const auto written = write_safetensors(posix_io(),
                                             directory.file(name),
                                             {{"run_id", "run-1"}, {"step", "20"}},
                                             {{"a", "F32", {4, 4}, values.data()},
                                              {"b", "F32", {4, 4}, values.data() + 16},
                                              {"c", "F32", {3}, values.data() + 32}});
      manifest.files.push_back(
          {name, written.size_bytes, written.hash, written.tensors, written.checksums});
    }
    write_file(posix_io(), directory.file("config.json"), "{}\n");
    manifest.files.push_back(describe_file(posix_io(), directory.file(""), "config.json"));
    write_file(posix_io(), directory.file("manifest.json"), manifest_to_json(manifest));
  }

  std::string bytes(const std::string& name) const {
    return read_file(posix_io(), directory.file(name), 1 << 20);
  }
  void write(const std::string& name, const std::string& text) const {
    write_file(posix_io(), directory.file(name), text);
  }
  // Returns the error of the verification; empty if the checkpoint is whole.
  std::string complaint() const {
    try {
      verify_checkpoint(posix_io(), directory.file(""));
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }
  // Flips one bit, returns the error of the verification, and flips it back.
  std::string complaint_after_flip(const std::string& name, size_t bit) const {
    const auto whole = bytes(name);
    auto altered = whole;
    altered[bit / 8] = static_cast<char>(altered[bit / 8] ^ (1 << bit % 8));
    write(name, altered);
    auto said = complaint();
    write(name, whole);
    return said;
  }
};

size_t header_size_bytes(const std::string& bytes) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  return sizeof(size) + size;
}

}  // namespace

TEST_CASE("a manifest is read as it was written") {
  const Checkpoint checkpoint;
  const auto manifest = verify_checkpoint(posix_io(), checkpoint.directory.file(""));
  CHECK(manifest.run_id == "run-1");
  CHECK(manifest.step == 20);
  REQUIRE(manifest.files.size() == 3);
  CHECK(manifest.files[0].tensors[1].name == "b");
  CHECK(manifest_to_json(manifest) == checkpoint.bytes("manifest.json"));
}

TEST_CASE("every bit of the manifest is covered") {
  const Checkpoint checkpoint;
  const auto text = checkpoint.bytes("manifest.json");
  size_t n_missed = 0;
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    auto altered = text;
    altered[bit / 8] = static_cast<char>(altered[bit / 8] ^ (1 << bit % 8));
    try {
      parse_manifest(altered, "manifest");
      ++n_missed;
    } catch (const Error&) {
    }
  }
  CHECK(n_missed == 0);
  CHECK_THROWS_AS(parse_manifest(text + "\n", "manifest"), Error);
  CHECK_THROWS_AS(parse_manifest(text.substr(0, text.size() - 1), "manifest"), Error);
}

TEST_CASE("every bit of a safetensors header is covered") {
  const Checkpoint checkpoint;
  const auto n_bits = 8 * header_size_bytes(checkpoint.bytes("model.safetensors"));
  size_t n_missed = 0;
  for (size_t bit = 0; bit < n_bits; ++bit) {
    const auto said = checkpoint.complaint_after_flip("model.safetensors", bit);
    if (said.find("model.safetensors") == std::string::npos) ++n_missed;
  }
  CHECK(n_missed == 0);
}

TEST_CASE("2,000 flipped bits of tensor data: each is found and its tensor named") {
  const Checkpoint checkpoint;
  const auto bytes = checkpoint.bytes("model.safetensors");
  const auto begin = 8 * header_size_bytes(bytes);
  std::mt19937_64 random(7);
  std::uniform_int_distribution<size_t> draw(begin, bytes.size() * 8 - 1);
  size_t n_missed = 0;
  for (int i = 0; i < 2000; ++i) {
    const size_t bit = draw(random);
    const size_t at = bit / 8 - begin / 8;
    const std::string tensor = at < 64 ? "'a'" : at < 128 ? "'b'" : "'c'";
    const auto said = checkpoint.complaint_after_flip("model.safetensors", bit);
    if (said.find("model.safetensors: tensor " + tensor) == std::string::npos) ++n_missed;
  }
  CHECK(n_missed == 0);
}

TEST_CASE("tensors of equal size that changed places are found") {
  const Checkpoint checkpoint;
  auto bytes = checkpoint.bytes("model.safetensors");
  const auto begin = header_size_bytes(bytes);
  std::swap_ranges(bytes.begin() + static_cast<ptrdiff_t>(begin),
                   bytes.begin() + static_cast<ptrdiff_t>(begin + 64),
                   bytes.begin() + static_cast<ptrdiff_t>(begin + 64));
  checkpoint.write("model.safetensors", bytes);
  CHECK_THAT(checkpoint.complaint(), Contains("model.safetensors: tensor 'a' was altered"));
}

TEST_CASE("truncation at every length is found") {
  const Checkpoint checkpoint;
  for (const std::string name : {"model.safetensors", "config.json", "manifest.json"}) {
    const auto bytes = checkpoint.bytes(name);
    size_t n_missed = 0;
    for (size_t size = 0; size < bytes.size(); ++size) {
      checkpoint.write(name, bytes.substr(0, size));
      if (checkpoint.complaint().find(name) == std::string::npos) ++n_missed;
    }
    CHECK(n_missed == 0);
    checkpoint.write(name, bytes);
  }
}

TEST_CASE("missing, extra and linked files are found") {
  namespace fs = std::filesystem;
  const Checkpoint checkpoint;
  const auto config = checkpoint.directory.file("config.json");
  fs::rename(config, checkpoint.directory.file("../moved"));
  CHECK_THAT(checkpoint.complaint(), Contains("config.json: is missing"));
  fs::create_symlink(checkpoint.directory.file("../moved"), config);
  CHECK_THAT(checkpoint.complaint(), Contains("config.json: expected a regular file"));
  fs::remove(config);
  fs::rename(checkpoint.directory.file("../moved"), config);
  REQUIRE(checkpoint.complaint().empty());
  checkpoint.write("extra", "");
  CHECK_THAT(checkpoint.complaint(), Contains("extra: is not in the manifest"));
  fs::remove(checkpoint.directory.file("extra"));
  fs::remove(checkpoint.directory.file("manifest.json"));
  CHECK_THAT(checkpoint.complaint(), Contains("manifest.json"));
}

TEST_CASE("a file of another step or run is refused, even with its hashes in the manifest") {
  const Checkpoint checkpoint;
  auto manifest = read_manifest(posix_io(), checkpoint.directory.file(""));
  manifest.step = 40;
  checkpoint.write("manifest.json", manifest_to_json(manifest));
  CHECK_THAT(checkpoint.complaint(), Contains("model.safetensors: expected step 40, got 20"));
  manifest.step = 20;
  manifest.run_id = "run-2";
  checkpoint.write("manifest.json", manifest_to_json(manifest));
  CHECK_THAT(checkpoint.complaint(), Contains("expected run_id run-2, got run-1"));
}

TEST_CASE("a manifest of a newer format or with a path in a file name is refused") {
  const Checkpoint checkpoint;
  auto manifest = read_manifest(posix_io(), checkpoint.directory.file(""));
  manifest.format_version = 2;
  CHECK_THROWS_WITH(parse_manifest(manifest_to_json(manifest), "m"), Contains("format version 2"));
  manifest.format_version = 1;
  for (const std::string name : {"../config.json", "/etc/passwd", "", ".hidden", ".."}) {
    manifest.files[2].name = name;
    CHECK_THROWS_WITH(parse_manifest(manifest_to_json(manifest), "m"),
                      Contains("plain file names"));
  }
}

}  // namespace dsmoe
