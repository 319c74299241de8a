#include "data/data_loader.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "common/error.h"
#include "data/sample_order.h"
#include "data/sequence_packer.h"
#include "data/tokenize.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Row = std::vector<int64_t>;

constexpr int64_t kSeqLen = 8;
constexpr uint64_t kSeed = 11;

std::string make_shards(const TemporaryDirectory& directory, size_t n_bytes) {
  std::string text;
  for (size_t i = 0; text.size() < n_bytes; ++i) text += std::to_string(i * i);
  text.resize(n_bytes);
  write_file(posix_io(), directory.file("text.txt"), text);
  TokenizeOptions options;
  options.inputs = {directory.file("text.txt")};
  options.out = directory.file("shards");
  options.shard_tokens = 37;  // windows lie across shards
  tokenize_files(posix_io(), options);
  return options.out;
}

DataLoaderConfig loader_config(int64_t batch_size, int64_t prefetch) {
  return {.seq_len = kSeqLen, .batch_size = batch_size, .seed = kSeed, .prefetch = prefetch};
}

std::vector<Row> rows_of(const at::Tensor& batch) {
  std::vector<Row> rows;
  const auto* data = batch.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch.size(0); ++i) {
    rows.emplace_back(data + i * batch.size(1), data + (i + 1) * batch.size(1));
  }
  return rows;
}

// The first n_batches' inputs and targets, row by row.
std::vector<Row> read_rows(DataLoader& loader, int64_t n_batches) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < n_batches; ++i) {
    const auto batch = loader.next();
    const auto tokens = rows_of(batch.tokens);
    const auto targets = rows_of(batch.targets);
    for (size_t row = 0; row < tokens.size(); ++row) {
      rows.push_back(tokens[row]);
      rows.push_back(targets[row]);
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("sequence packer: windows tile the stream, shifted by epoch, inside it") {
  const SequencePacker packer(1000, 16, 5);
  CHECK(packer.n_sequences() == 61);
  std::set<int64_t> shifts;
  for (int64_t epoch = 0; epoch < 40; ++epoch) {
    const int64_t shift = packer.begin(epoch, 0);
    shifts.insert(shift);
    REQUIRE((shift >= 0 && shift < 16));
    for (int64_t i = 0; i < packer.n_sequences(); ++i) {
      REQUIRE(packer.begin(epoch, i) == shift + 16 * i);
      REQUIRE(packer.begin(epoch, i) + 16 + 1 <= 1000);
    }
  }
  CHECK(shifts.size() > 8);  // 16 values drawn 40 times
  CHECK(SequencePacker(17, 16, 5).n_sequences() == 1);
  CHECK(SequencePacker(17, 16, 5).begin(3, 0) == 0);
  CHECK_THROWS_WITH(SequencePacker(16, 16, 5),
                    Contains("at least seq_len + 1 = 17 tokens, got 16"));
  for (int64_t n_tokens = 17; n_tokens < 80; ++n_tokens) {
    const SequencePacker small(n_tokens, 16, 5);
    for (int64_t epoch = 0; epoch < 20; ++epoch) {
      REQUIRE(small.begin(epoch, small.n_sequences() - 1) + 17 <= n_tokens);
    }
  }
}

TEST_CASE("data loader: every row is the window that order and packer name") {
  const TemporaryDirectory directory;
  const auto dataset = std::make_shared<const TokenDataset>(make_shards(directory, 500));
  DataLoader loader(dataset, loader_config(3, 2));
  const SequencePacker packer(dataset->n_tokens(), kSeqLen, kSeed);
  const SampleOrder order(packer.n_sequences(), kSeed);
  CHECK(loader.n_sequences() == packer.n_sequences());
  const int64_t n_batches = 2 * packer.n_sequences() / 3 + 2;  // into the third epoch
  const auto rows = read_rows(loader, n_batches);
  for (int64_t position = 0; position < 3 * n_batches; ++position) {
    const auto place = order.at(position);
    std::vector<int32_t> window(kSeqLen + 1);
    dataset->copy(packer.begin(place.epoch, place.index), window);
    const auto at = static_cast<size_t>(2 * position);
    REQUIRE(rows[at] == Row(window.begin(), window.end() - 1));
    REQUIRE(rows[at + 1] == Row(window.begin() + 1, window.end()));
  }
  CHECK(loader.position() == 3 * n_batches);
}

TEST_CASE("data loader: neither batch size nor prefetch nor a seek changes the order") {
  const TemporaryDirectory directory;
  const auto dataset = std::make_shared<const TokenDataset>(make_shards(directory, 500));
  DataLoader plain(dataset, loader_config(1, 0));
  const auto expected = read_rows(plain, 120);
  for (const int64_t batch_size : {2, 5, 12}) {
    for (const int64_t prefetch : {0, 1, 7}) {
      DataLoader loader(dataset, loader_config(batch_size, prefetch));
      CHECK(read_rows(loader, 120 / batch_size) == expected);
      loader.seek(60);
      const std::vector<Row> rest(expected.begin() + 120, expected.end());
      CHECK(read_rows(loader, 60 / batch_size) == rest);
      CHECK(loader.position() == 120);
    }
  }
  DataLoader other(dataset, {.seq_len = kSeqLen, .batch_size = 1, .seed = 12, .prefetch = 0});
  CHECK(read_rows(other, 120) != expected);
}

TEST_CASE("data loader: what the prefetch thread meets comes out of next, again and again") {
  const TemporaryDirectory directory;
  const auto shards = make_shards(directory, 500);
  const auto dataset = std::make_shared<const TokenDataset>(shards);
  for (int i = 0; i < 14; ++i) {
    std::filesystem::resize_file(
        shards + "/shard-000" + (i < 10 ? "0" : "") + std::to_string(i) + ".bin", 70);
  }
  DataLoader loader(dataset, loader_config(2, 3));
  CHECK_THROWS_WITH(loader.next(), Contains("became shorter"));
  CHECK_THROWS_WITH(loader.next(), Contains("became shorter"));
}

TEST_CASE("data loader: settings that cannot work are refused") {
  const TemporaryDirectory directory;
  const auto dataset = std::make_shared<const TokenDataset>(make_shards(directory, 7));
  CHECK_THROWS_WITH(DataLoader(dataset, loader_config(1, 0)), Contains("at least seq_len + 1 = 9"));
  auto config = loader_config(0, 0);
  config.seq_len = 4;
  CHECK_THROWS_WITH(DataLoader(dataset, config), Contains("batch_size >= 1"));
  config.batch_size = 1;
  DataLoader loader(dataset, config);
  CHECK_THROWS_AS(loader.seek(-1), Error);
}

}  // namespace dsmoe
