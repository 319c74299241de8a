#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/io.h"
#include "data/dataset_record.h"
#include "data/token_shard_header.h"
#include "formats/hash.h"

namespace dsmoe {

/// Writes one token shard as its tokens arrive, in bounded memory (8 bytes per document, a buffer).
/// Writes the header last: an unfinished file is not a shard.
class TokenShardWriter {
 public:
  /// tokenizer  fingerprint. Throws RunError if the file cannot be made.
  TokenShardWriter(Io& io, std::string path, int64_t vocab_size, const std::string& tokenizer);
  ~TokenShardWriter();
  TokenShardWriter(const TokenShardWriter&) = delete;
  TokenShardWriter& operator=(const TokenShardWriter&) = delete;

  /// Marks the next token as the first of a document.
  void start_document();
  /// Throws Error for an id outside the vocabulary, RunError for a failed write.
  void add(std::span<const int32_t> ids);
  int64_t n_tokens() const { return header_.n_tokens; }
  /// Completes the shard and makes it durable. The record has no name yet.
  ShardRecord finish();

 private:
  void flush();
  void close(int fd);

  Io& io_;
  std::string path_;
  int fd_ = -1;
  TokenShardHeader header_;
  StreamHash hash_;
  std::string buffer_;
  std::vector<int64_t> starts_;
};

}  // namespace dsmoe
