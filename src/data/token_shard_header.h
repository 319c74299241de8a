#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dsmoe {

/// The first 64 bytes of a token shard, little-endian: magic `DSMT` 4, version 4, bytes per token
/// 4, zero 4, vocab_size 8, n_tokens 8, payload hash 8, n_documents 8, tokenizer hash 8, hash of
/// the 56 bytes before it 8. The payload follows: the ids, then the start of every document that
/// begins in the shard, as 8-byte token positions. Hashes are XXH3-64.
struct TokenShardHeader {
  static constexpr size_t kBytes = 64;
  static constexpr uint64_t kVersion = 2;
  static constexpr int kStartBytes = 8;

  int bytes_per_token = 2;  ///< 2 for up to 65,536 ids, else 4
  int64_t vocab_size = 0;
  int64_t n_tokens = 0;
  int64_t n_documents = 0;
  uint64_t payload_hash = 0;
  uint64_t tokenizer_hash = 0;  ///< of the fingerprint

  uint64_t file_bytes() const;
  uint64_t starts_offset() const;  ///< of the first document start in the file
};

int bytes_per_token(int64_t vocab_size);
/// XXH3-64.
uint64_t hash_number(std::string_view bytes);

void put_number(std::string& bytes, uint64_t value, int n_bytes);
uint64_t get_number(const char* bytes, int n_bytes);

std::string encode_shard_header(const TokenShardHeader& header);
/// Checks magic, hash, version and ranges. Throws Error naming the path.
TokenShardHeader decode_shard_header(std::string_view bytes, const std::string& path);

}  // namespace dsmoe
