#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// Writes one file of token ids: a 64-byte header (magic `DSMT`, version, bytes per token 2 or 4,
/// vocab_size, count, XXH3-64 of the payload, XXH3-64 of the header before it) and the ids,
/// little-endian. Throws RunError for a failed write and Error for an id outside the vocabulary.
void write_token_shard(Io& io,
                       const std::string& path,
                       const std::vector<int32_t>& tokens,
                       int64_t vocab_size);

/// An open token shard, read by pread: a file that is cut off under us is an Error, where a mapping
/// would end the process. Opening checks the header against the file's size; verify() reads all of
/// it. May be read from several threads.
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

  int64_t size() const { return n_tokens_; }
  int64_t vocab_size() const { return vocab_size_; }
  const std::string& payload_hash() const { return payload_hash_; }  // 16 hex digits

  /// Copies tokens [begin, begin + out.size()). The range must lie inside. Throws Error for an id
  /// outside the vocabulary, and if the file has become shorter since it was opened.
  void copy(int64_t begin, std::span<int32_t> out) const;

  /// Hashes the payload and checks every id. Throws Error.
  void verify() const;

 private:
  void read_header();
  void read_payload(int64_t begin, size_t n_tokens, std::string& bytes) const;
  void decode(int64_t begin, const std::string& bytes, std::span<int32_t> out) const;

  std::string path_;
  int fd_ = -1;
  int64_t n_tokens_ = 0;
  int64_t vocab_size_ = 0;
  int bytes_per_token_ = 2;
  std::string payload_hash_;
};

}  // namespace dsmoe
