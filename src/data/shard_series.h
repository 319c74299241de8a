#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/io.h"
#include "data/dataset_record.h"
#include "data/token_shard_writer.h"

namespace dsmoe {

/// Writes the shards of a directory one after another and begins the next when one is full.
class ShardSeries {
 public:
  /// record  gets shards and counts; its tokenizer and vocab_size are set. Outlives this.
  ShardSeries(Io& io, std::string directory, int64_t shard_tokens, DatasetRecord& record)
      : io_(io), directory_(std::move(directory)), shard_tokens_(shard_tokens), record_(record) {}

  /// n_bytes  of the text that the tokens encode
  void add(std::span<const int32_t> ids, bool starts_document, int64_t n_bytes);
  /// Completes the last shard.
  void finish();
  /// Tokens added so far.
  int64_t n_tokens() const { return n_tokens_; }

 private:
  void open();

  Io& io_;
  std::string directory_;
  int64_t shard_tokens_;
  DatasetRecord& record_;
  std::optional<TokenShardWriter> shard_;
  int64_t n_tokens_ = 0;
};

/// Moves the last n_tokens of the finished shards in `directory` to `target`, where they begin a
/// document, and shortens the record. n_tokens is less than the record's.
///
/// bytes_of  bytes of the text that tokens encode
void move_tail(Io& io,
               const std::string& directory,
               DatasetRecord& record,
               int64_t n_tokens,
               ShardSeries& target,
               const std::function<int64_t(const std::vector<int32_t>&)>& bytes_of);

}  // namespace dsmoe
