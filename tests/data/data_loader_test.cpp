#include "data/data_loader.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <span>
#include <thread>
#include <tuple>

#include "common/error.h"
#include "common/process_setup.h"
#include "data/megatron_source.h"
#include "data/sample_order.h"
#include "data/sequence_packer.h"
#include "data/token_dataset.h"
#include "data/tokenize.h"
#include "support/mapped_resident.h"
#include "support/megatron_pair.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Row = std::vector<int64_t>;

constexpr int64_t kSeqLen = 8;
constexpr uint64_t kSeed = 11;

std::string make_shards(const TemporaryDirectory& directory,
                        size_t n_bytes,
                        const std::string& name = "shards",
                        size_t document_bytes = 1000) {
  std::string digits;
  for (size_t i = 0; digits.size() < n_bytes; ++i) digits += std::to_string(i * i);
  std::string text;
  for (size_t begin = 0; begin < n_bytes; begin += document_bytes) {
    const size_t size = std::min(document_bytes, n_bytes - begin);
    text += (begin == 0 ? "" : "<|endoftext|>") + digits.substr(begin, size);
  }
  write_file(posix_io(), directory.file("text.txt"), text);
  TokenizeOptions options;
  options.inputs = {directory.file("text.txt")};
  options.out = directory.file(name);
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

// Tokens 0, 1, 2 and so on, read in windows that are counted; one past the allowed number waits.
class CountedSource : public TokenSource {
 public:
  int64_t n_tokens() const override { return 1000; }
  int64_t n_documents() const override { return 1; }
  const std::string& hash() const override { return hash_; }
  void copy(int64_t begin, std::span<int32_t> out) const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return n_reads_ < n_allowed_; });
    n_reads_ += 1;
    readers_.insert(std::this_thread::get_id());
    std::iota(out.begin(), out.end(), static_cast<int32_t>(begin));
    changed_.notify_all();
  }
  std::vector<int64_t> document_starts(int64_t, int64_t) const override { return {}; }
  int64_t documents_before(int64_t) const override { return 1; }

  void allow(int64_t n_reads) {
    const std::lock_guard lock(mutex_);
    n_allowed_ = n_reads;
    changed_.notify_all();
  }
  bool wait_for_reads(int64_t n) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::minutes(2), [&] { return n_reads_ >= n; });
  }
  int64_t n_reads() const {
    const std::lock_guard lock(mutex_);
    return n_reads_;
  }
  bool has_reader(std::thread::id thread) const {
    const std::lock_guard lock(mutex_);
    return readers_.contains(thread);
  }

 private:
  std::string hash_ = "0";
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable int64_t n_reads_ = 0;
  mutable std::set<std::thread::id> readers_;
  int64_t n_allowed_ = 0;
};

// Throws at the first read only.
class FailsOnce : public CountedSource {
 public:
  FailsOnce() { allow(1000); }
  void copy(int64_t begin, std::span<int32_t> out) const override {
    if (!has_failed_.exchange(true)) throw Error("the first read fails");
    CountedSource::copy(begin, out);
  }

 private:
  mutable std::atomic<bool> has_failed_ = false;
};

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

// The sequences that a run consumed, in order.
using IdLog = std::vector<std::tuple<size_t, int64_t, int64_t>>;  // corpus, epoch, index

struct Ranks {
  int64_t n_ranks;
  int64_t batch_size;    // per rank
  int64_t accumulation;  // micro-steps
};

// Trains n_steps from `position` as `ranks` would; returns the position after. Each rank has a
// separate loader, as it has a separate process. The log is in the order of the global batch, and
// the tokens read are checked against the sample named.
int64_t simulate(const std::vector<WeightedSource>& sources,
                 const Ranks& ranks,
                 int64_t position,
                 int64_t n_steps,
                 IdLog& log) {
  int64_t end = position;
  std::map<int64_t, std::tuple<size_t, int64_t, int64_t>> consumed;
  for (int64_t rank = 0; rank < ranks.n_ranks; ++rank) {
    auto config = loader_config(ranks.batch_size, rank % 2 == 0 ? 3 : 0);
    config.rank = rank;
    config.n_ranks = ranks.n_ranks;
    DataLoader loader(sources, config);
    loader.seek(position);
    for (int64_t i = 0; i < n_steps * ranks.accumulation; ++i) {
      const auto batch = loader.next();
      const auto rows = rows_of(batch.tokens);
      for (size_t row = 0; row < rows.size(); ++row) {
        const auto sample = loader.sample(batch.positions[row]);
        std::vector<int32_t> window(kSeqLen);
        sources[sample.corpus].source->copy(sample.begin, window);
        REQUIRE(rows[row] == Row(window.begin(), window.end()));
        REQUIRE(consumed
                    .emplace(batch.positions[row],
                             std::make_tuple(sample.corpus, sample.epoch, sample.index))
                    .second);
      }
    }
    end = loader.position();
  }
  for (const auto& [at, id] : consumed) {
    REQUIRE(at == position++);  // no gap
    log.push_back(id);
  }
  REQUIRE(position == end);
  return end;
}

struct TwoCorpora {
  TwoCorpora()
      : small(std::make_shared<const TokenDataset>(make_shards(directory, 150, "small", 13))),
        large(std::make_shared<const TokenDataset>(make_shards(directory, 500, "large", 70))) {}

  std::vector<WeightedSource> mixed() const { return {{large, 3}, {small, 1}}; }

  TemporaryDirectory directory;
  std::shared_ptr<const TokenDataset> small;
  std::shared_ptr<const TokenDataset> large;
};

TEST_CASE("data loader: the id log is the same for every rank count, batch size and resume") {
  const TwoCorpora data;
  for (const auto& sources : {data.mixed(), std::vector<WeightedSource>{{data.large, 1}}}) {
    // 24 sequences a step; an epoch of the large corpus is 61 sequences, so 20 steps pass several.
    IdLog oracle;
    simulate(sources, {1, 1, 24}, 0, 20, oracle);
    REQUIRE(oracle.size() == 480);
    CHECK(std::get<1>(oracle.back()) >= 2);

    IdLog micro_batch;  // another micro-batch
    simulate(sources, {1, 8, 3}, 0, 20, micro_batch);
    CHECK((micro_batch == oracle));

    IdLog ranks;  // 4 -> 2 -> 3 -> 1 ranks
    int64_t position = simulate(sources, {4, 3, 2}, 0, 5, ranks);
    position = simulate(sources, {2, 6, 2}, position, 5, ranks);
    position = simulate(sources, {3, 4, 2}, position, 5, ranks);
    simulate(sources, {1, 12, 2}, position, 5, ranks);
    CHECK((ranks == oracle));

    // Resumes: in the middle of an epoch, at its edge, in a later epoch, and two in a row.
    for (const int64_t stop : {1, 30, 60, 61, 62, 122, 150, 183, 200}) {
      IdLog resumed;
      int64_t at = simulate(sources, {1, 1, 1}, 0, stop, resumed);
      at = simulate(sources, {1, 2, 1}, at, 5, resumed);
      simulate(sources, {1, 1, 480 - static_cast<int64_t>(resumed.size())}, at, 1, resumed);
      CHECK((resumed == oracle));
    }
  }
}

TEST_CASE("data loader: each corpus gives every sequence once an epoch, the mixture its shares") {
  const TwoCorpora data;
  DataLoader loader(data.mixed(), loader_config(1, 0));
  std::map<std::pair<size_t, int64_t>, std::multiset<int64_t>> epochs;
  int64_t n_large = 0;
  constexpr int64_t kSamples = 1000;
  for (int64_t position = 0; position < kSamples; ++position) {
    const auto sample = loader.sample(position);
    epochs[{sample.corpus, sample.epoch}].insert(sample.index);
    n_large += sample.corpus == 0 ? 1 : 0;
  }
  CHECK(std::abs(n_large - kSamples * 3 / 4) <= 1);
  for (const size_t corpus : {0, 1}) {
    const int64_t n = loader.n_sequences(corpus);
    for (int64_t epoch = 0; epochs.contains({corpus, epoch + 1}); ++epoch) {
      const auto& seen = epochs[{corpus, epoch}];
      CHECK(static_cast<int64_t>(seen.size()) == n);
      CHECK(static_cast<int64_t>(std::set<int64_t>(seen.begin(), seen.end()).size()) == n);
      CHECK(*seen.begin() == 0);
      CHECK(*seen.rbegin() == n - 1);
    }
    CHECK(epochs.contains({corpus, 2}));
  }
}

TEST_CASE("data loader: with document_mask positions restart at every document's start") {
  const TwoCorpora data;
  auto config = loader_config(4, 2);
  DataLoader plain(data.mixed(), config);
  CHECK_FALSE(plain.next().document_positions.defined());
  config.document_mask = true;
  DataLoader loader(data.mixed(), config);
  int n_restarts = 0;
  for (int i = 0; i < 60; ++i) {
    const auto batch = loader.next();
    const auto tokens = rows_of(batch.tokens);
    const auto positions = rows_of(batch.document_positions);
    for (size_t row = 0; row < tokens.size(); ++row) {
      int64_t expected = 0;
      for (size_t column = 0; column < tokens[row].size(); ++column) {
        if (tokens[row][column] == 256) {  // BOS
          expected = 0;
          n_restarts += column > 0 ? 1 : 0;
        }
        REQUIRE(positions[row][column] == expected++);
      }
    }
  }
  CHECK(n_restarts > 20);
}

TEST_CASE("data loader: a training source may be a Megatron pair") {
  const TemporaryDirectory directory;
  std::vector<int32_t> ids(100);
  std::iota(ids.begin(), ids.end(), 0);
  const MegatronDocuments documents = {{{ids.begin(), ids.begin() + 33}},
                                       {{ids.begin() + 33, ids.end()}}};
  write_megatron_pair(directory.file("pair"), make_megatron_pair(documents, 2));
  auto config = loader_config(3, 2);
  config.document_mask = true;
  DataLoader loader(std::make_shared<const MegatronSource>(posix_io(), directory.file("pair"), 257),
                    config);
  for (int i = 0; i < 10; ++i) {
    const auto batch = loader.next();
    const auto tokens = rows_of(batch.tokens);
    const auto positions = rows_of(batch.document_positions);
    for (size_t row = 0; row < tokens.size(); ++row) {
      for (size_t column = 0; column < tokens[row].size(); ++column) {
        const int64_t id = tokens[row][column];  // its place in the stream
        REQUIRE(id == tokens[row][0] + static_cast<int64_t>(column));
        const bool in_second = id >= 33 && tokens[row][0] < 33;
        REQUIRE(positions[row][column] == (in_second ? id - 33 : id - tokens[row][0]));
      }
    }
  }
}

TEST_CASE("data loader: a thread makes prefetch batches before they are requested") {
  const auto source = std::make_shared<CountedSource>();
  source->allow(6);
  DataLoader loader(source, loader_config(2, 3));
  // The thread must not wait where a check fails.
  const std::shared_ptr<void> at_end(nullptr, [&](void*) { source->allow(1000); });
  REQUIRE(source->wait_for_reads(6));  // three batches of two rows, none asked for yet
  // The source gives no more tokens: a batch that is not ready would never arrive.
  const auto rows = read_rows(loader, 3);
  CHECK_FALSE(source->has_reader(std::this_thread::get_id()));
  CHECK(source->n_reads() == 6);
  source->allow(1000);
  REQUIRE(source->wait_for_reads(12));  // and the next three
  CHECK(loader.position() == 6);
  for (int64_t n_taken = 4; n_taken < 200; ++n_taken) {
    loader.next();
    REQUIRE(source->n_reads() <= 2 * (n_taken + 3));  // three batches ahead at most
  }
  DataLoader direct(source, loader_config(2, 0));
  CHECK(read_rows(direct, 3) == rows);
  CHECK(source->has_reader(std::this_thread::get_id()));
}

TEST_CASE("data loader: every call of next rethrows an exception of the prefetch thread") {
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

TEST_CASE("data loader: an exception of the prefetch thread stays until a seek") {
  const auto source = std::make_shared<FailsOnce>();
  DataLoader loader(source, loader_config(2, 3));
  CHECK_THROWS_WITH(loader.next(), Contains("the first read fails"));
  CHECK_THROWS_WITH(loader.next(), Contains("the first read fails"));
  loader.seek(0);
  CHECK_NOTHROW(loader.next());
}

TEST_CASE("data loader: 11,000 small batches made ahead take less than 1 MiB more than 1,000") {
#if defined(__SANITIZE_ADDRESS__)
  WARN("skipped: AddressSanitizer keeps what is freed");
  return;
#endif
  setup_process();  // its top pad let free pieces of a heap add up
  const TemporaryDirectory directory;
  const auto source = std::make_shared<TokenDataset>(make_shards(directory, 1000));
  auto config = loader_config(2, 4);
  config.seq_len = 16;
  config.document_mask = true;
  DataLoader loader(source, config);
  const auto resident_after = [&](int n_steps) {
    for (int i = 0; i < n_steps; ++i) {
      const Batch first = loader.next();  // two at a time, as accumulation holds them
      const Batch second = loader.next();
    }
    return mapped_resident_bytes();
  };
  const int64_t before = resident_after(500);
  CHECK(resident_after(5500) - before < 1 << 20);
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
  config.rank = 2;
  config.n_ranks = 2;
  CHECK_THROWS_WITH(DataLoader(dataset, config), Contains("rank in [0, 2), got 2"));
}

}  // namespace dsmoe
