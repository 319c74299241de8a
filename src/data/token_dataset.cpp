#include "data/token_dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "data/dataset_record.h"
#include "data/tokenizer_files.h"

namespace dsmoe {
namespace {

void check_shard(const TokenShard& shard,
                 const ShardRecord& expected,
                 int64_t vocab_size,
                 const std::string& path) {
  if (shard.size() != expected.n_tokens || shard.payload_hash() != expected.hash ||
      shard.vocab_size() != vocab_size) {
    throw Error(fmt::format("{}: expected {} tokens of {} ids with hash {}, got {} of {} with {}",
                            path,
                            expected.n_tokens,
                            vocab_size,
                            expected.hash,
                            shard.size(),
                            shard.vocab_size(),
                            shard.payload_hash()));
  }
}

}  // namespace

TokenDataset::TokenDataset(const std::string& directory) {
  const DatasetRecord record = read_dataset_record(posix_io(), directory);
  tokenizer_ = load_tokenizer(posix_io(), directory);
  if (tokenizer_->fingerprint() != record.tokenizer ||
      tokenizer_->vocab_size() != record.vocab_size) {
    throw Error(fmt::format("{}: expected the tokenizer {} of {} ids, got {} of {}",
                            directory,
                            record.tokenizer,
                            record.vocab_size,
                            tokenizer_->fingerprint(),
                            tokenizer_->vocab_size()));
  }
  for (const ShardRecord& expected : record.shards) {
    const std::string path = directory + "/" + expected.name;
    check_shard(shards_.emplace_back(path), expected, record.vocab_size, path);
    shard_begin_.push_back(n_tokens_);
    n_tokens_ += expected.n_tokens;
  }
  n_documents_ = record.n_documents;
  n_bytes_ = record.n_bytes;
  hash_ = dataset_hash(record);
}

void TokenDataset::copy(int64_t begin, std::span<int32_t> out) const {
  const auto n_tokens = static_cast<int64_t>(out.size());
  if (begin < 0 || begin > n_tokens_ || n_tokens > n_tokens_ - begin) {
    throw Error(
        fmt::format("token data set: expected a range inside [0, {}), got {} tokens from {}",
                    n_tokens_,
                    n_tokens,
                    begin));
  }
  auto next = std::upper_bound(shard_begin_.begin(), shard_begin_.end(), begin);
  for (auto i = static_cast<size_t>(next - shard_begin_.begin()) - 1; !out.empty(); ++i) {
    const int64_t inside = begin - shard_begin_[i];
    const auto part = std::min(out.size(), static_cast<size_t>(shards_[i].size() - inside));
    shards_[i].copy(inside, out.first(part));
    out = out.subspan(part);
    begin += static_cast<int64_t>(part);
  }
}

void TokenDataset::verify() const {
  for (const TokenShard& shard : shards_) shard.verify();
}

}  // namespace dsmoe
