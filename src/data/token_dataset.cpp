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
                 const DatasetRecord& record,
                 const std::string& path) {
  if (!shard.made_by(record.tokenizer)) {
    throw Error(fmt::format(
        "{}: expected a shard of tokenizer {}, got one of another", path, record.tokenizer));
  }
  if (shard.size() != expected.n_tokens || shard.n_documents() != expected.n_documents ||
      shard.payload_hash() != expected.hash || shard.vocab_size() != record.vocab_size) {
    throw Error(fmt::format(
        "{}: expected {} tokens of {} ids in {} documents with hash {}, got {} of {} in {} with {}",
        path,
        expected.n_tokens,
        record.vocab_size,
        expected.n_documents,
        expected.hash,
        shard.size(),
        shard.vocab_size(),
        shard.n_documents(),
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
    check_shard(shards_.emplace_back(path), expected, record, path);
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

std::vector<int64_t> TokenDataset::document_starts(int64_t begin, int64_t end) const {
  std::vector<int64_t> starts;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const int64_t shard_begin = shard_begin_[i];
    if (shard_begin >= end) break;
    if (shard_begin + shards_[i].size() <= begin) continue;
    shards_[i].append_document_starts(
        std::max<int64_t>(begin - shard_begin, 0), end - shard_begin, shard_begin, starts);
  }
  return starts;
}

int64_t TokenDataset::documents_before(int64_t position) const {
  int64_t count = 0;
  for (size_t i = 0; i < shards_.size() && shard_begin_[i] < position; ++i) {
    const int64_t inside = position - shard_begin_[i];
    count +=
        inside < shards_[i].size() ? shards_[i].documents_before(inside) : shards_[i].n_documents();
  }
  return count;
}

void TokenDataset::verify() const {
  for (const TokenShard& shard : shards_) shard.verify();
}

}  // namespace dsmoe
