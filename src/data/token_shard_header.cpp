#include "data/token_shard_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/error.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

constexpr size_t kHashedBytes = 56;
constexpr std::string_view kMagic = "DSMT";
constexpr int64_t kMaxVocab16 = 65536;
constexpr uint64_t kMaxCount = uint64_t{1} << 56;  // sizes in bytes stay inside int64

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(fmt::format("token shard '{}': {}", path, what));
}

}  // namespace

uint64_t TokenShardHeader::starts_offset() const {
  return kBytes + static_cast<uint64_t>(n_tokens) * static_cast<uint64_t>(bytes_per_token);
}

uint64_t TokenShardHeader::file_bytes() const {
  return starts_offset() + static_cast<uint64_t>(n_documents) * kStartBytes;
}

int bytes_per_token(int64_t vocab_size) { return vocab_size <= kMaxVocab16 ? 2 : 4; }

uint64_t hash_number(std::string_view bytes) { return std::stoull(hash64(bytes), nullptr, 16); }

void put_number(std::string& bytes, uint64_t value, int n_bytes) {
  for (int i = 0; i < n_bytes; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t get_number(const char* bytes, int n_bytes) {
  uint64_t value = 0;
  for (int i = n_bytes - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string encode_shard_header(const TokenShardHeader& header) {
  std::string bytes(kMagic);
  put_number(bytes, TokenShardHeader::kVersion, 4);
  put_number(bytes, static_cast<uint64_t>(header.bytes_per_token), 4);
  put_number(bytes, 0, 4);
  put_number(bytes, static_cast<uint64_t>(header.vocab_size), 8);
  put_number(bytes, static_cast<uint64_t>(header.n_tokens), 8);
  put_number(bytes, header.payload_hash, 8);
  put_number(bytes, static_cast<uint64_t>(header.n_documents), 8);
  put_number(bytes, header.tokenizer_hash, 8);
  put_number(bytes, hash_number(bytes), 8);
  return bytes;
}

TokenShardHeader decode_shard_header(std::string_view bytes, const std::string& path) {
  if (!bytes.starts_with(kMagic)) fail(path, "expected magic 'DSMT'; run 'dsmoe tokenize' first");
  const char* data = bytes.data();
  if (hash_number(bytes.substr(0, kHashedBytes)) != get_number(data + kHashedBytes, 8)) {
    fail(path, "the header was altered; make the data set again");
  }
  if (const uint64_t version = get_number(data + 4, 4); version != TokenShardHeader::kVersion) {
    fail(path,
         fmt::format("expected version {}, got {}; make the data set again",
                     TokenShardHeader::kVersion,
                     version));
  }
  const uint64_t width = get_number(data + 8, 4);
  const uint64_t vocab_size = get_number(data + 16, 8);
  const uint64_t n_tokens = get_number(data + 24, 8);
  const uint64_t n_documents = get_number(data + 40, 8);
  const bool valid = vocab_size >= 1 && vocab_size <= std::numeric_limits<int32_t>::max() &&
                     n_tokens <= kMaxCount && n_documents <= n_tokens &&
                     width == static_cast<uint64_t>(bytes_per_token(
                                  static_cast<int64_t>(std::min(vocab_size, uint64_t{1} << 31))));
  if (!valid) {
    fail(path,
         fmt::format("{} bytes per token, {} ids, {} tokens, {} documents",
                     width,
                     vocab_size,
                     n_tokens,
                     n_documents));
  }
  TokenShardHeader header;
  header.bytes_per_token = static_cast<int>(width);
  header.vocab_size = static_cast<int64_t>(vocab_size);
  header.n_tokens = static_cast<int64_t>(n_tokens);
  header.n_documents = static_cast<int64_t>(n_documents);
  header.payload_hash = get_number(data + 32, 8);
  header.tokenizer_hash = get_number(data + 48, 8);
  return header;
}

}  // namespace dsmoe
