#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/io.h"
#include "data/token_shard_header.h"

namespace dsmoe {

/// An open token shard, read by pread: a file truncated while open is an Error, while a mapping
/// would end the process. Opening checks the header against the file's size; verify() reads the
/// whole file. Several threads may read it.
class TokenShard {
 public:
  /// Throws Error naming the file: missing, not a shard, altered header, another size than the
  /// header says.
  explicit TokenShard(const std::string& path);
  ~TokenShard();
  TokenShard(TokenShard&& other) noexcept;
  TokenShard(const TokenShard&) = delete;
  TokenShard& operator=(const TokenShard&) = delete;
  TokenShard& operator=(TokenShard&&) = delete;

  int64_t size() const { return header_.n_tokens; }
  int64_t n_documents() const { return header_.n_documents; }  ///< that begin in the shard
  int64_t vocab_size() const { return header_.vocab_size; }
  std::string payload_hash() const;  ///< 16 hex digits
  bool made_by(const std::string& tokenizer_fingerprint) const;

  /// Copies tokens [begin, begin + out.size()). The range must lie inside. Throws Error for an id
  /// outside the vocabulary, and if the file has become shorter since it was opened.
  void copy(int64_t begin, std::span<int32_t> out) const;

  /// Appends the document starts in [begin, end) plus `shift` to `out`, in order.
  void append_document_starts(int64_t begin,
                              int64_t end,
                              int64_t shift,
                              std::vector<int64_t>& out) const;

  /// Returns the documents of the shard that start before a position in it.
  int64_t documents_before(int64_t position) const;

  /// Hashes the payload, checks every id and that document starts rise. Throws Error.
  void verify() const;

 private:
  void read_bytes(uint64_t offset, std::string& bytes) const;
  void decode(int64_t begin, const std::string& bytes, std::span<int32_t> out) const;
  int64_t decode_start(const char* bytes) const;
  int64_t document_start(int64_t index) const;

  std::string path_;
  int fd_ = -1;
  TokenShardHeader header_;
};

}  // namespace dsmoe
