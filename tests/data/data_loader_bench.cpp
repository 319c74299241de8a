// Measures the wait of a step for its batch, and batches per second: run with the tag [.bench].
#include <catch2/catch.hpp>
#include <chrono>
#include <iostream>
#include <thread>

#include "data/data_loader.h"
#include "data/token_dataset.h"
#include "data/tokenize.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBenchSeqLen = 1024;
constexpr int64_t kBatch = 4;
constexpr double kTokensPerSecond = 50'000;

// Four megabytes of documents of 300 to 1,299 bytes in shards of a hundred thousand tokens.
std::string make_bench_shards(const TemporaryDirectory& directory) {
  std::string text;
  for (size_t i = 0; text.size() < 4'000'000; ++i) {
    text += std::string(300 + i * 7919 % 1000, static_cast<char>('a' + i % 26)) + "<|endoftext|>";
  }
  write_file(posix_io(), directory.file("text.txt"), text);
  TokenizeOptions options;
  options.inputs = {directory.file("text.txt")};
  options.out = directory.file("shards");
  options.shard_tokens = 100'000;
  tokenize_files(posix_io(), options);
  return options.out;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

TEST_CASE("data loader: measures the wait of a step of 50,000 tokens a second", "[.bench][data]") {
  const TemporaryDirectory directory;
  const auto dataset = std::make_shared<const TokenDataset>(make_bench_shards(directory));
  DataLoaderConfig config{.seq_len = kBenchSeqLen, .batch_size = kBatch, .document_mask = true};
  DataLoader loader(std::vector<WeightedSource>{{dataset, 3}, {dataset, 1}}, config);
  loader.next();
  const std::chrono::duration<double> step(kBatch * kBenchSeqLen / kTokensPerSecond);
  double waited = 0;
  const auto start = Clock::now();
  for (int i = 0; i < 40; ++i) {
    const auto before = Clock::now();
    loader.next();
    waited += seconds_since(before);
    std::this_thread::sleep_until(before + step);
  }
  const double share = waited / seconds_since(start);

  config.prefetch = 0;
  DataLoader direct(std::vector<WeightedSource>{{dataset, 3}, {dataset, 1}}, config);
  const auto direct_start = Clock::now();
  for (int i = 0; i < 200; ++i) direct.next();
  const double rate = 200 * kBatch * kBenchSeqLen / seconds_since(direct_start);
  std::cout << "wait " << 100 * share << " % of the step at 50,000 tokens/s; without prefetch "
            << rate / 1e6 << " M tokens/s\n";
}

}  // namespace dsmoe
