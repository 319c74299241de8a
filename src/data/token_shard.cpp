#include "data/token_shard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "common/error.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

// Header: magic 4, version 4, bytes per token 4, zero 4, vocab_size 8, count 8, payload hash 8,
// zero 8, zero 8, hash of these 56 bytes 8.
constexpr size_t kHeaderBytes = 64;
constexpr size_t kHashedBytes = 56;
constexpr std::string_view kMagic = "DSMT";
constexpr uint64_t kVersion = 1;
constexpr int64_t kMaxVocab16 = 65536;
constexpr size_t kChunkTokens = 1 << 16;

void put(std::string& bytes, uint64_t value, int n_bytes) {
  for (int i = 0; i < n_bytes; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t get(const char* bytes, int n_bytes) {
  uint64_t value = 0;
  for (int i = n_bytes - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

uint64_t hash_number(std::string_view bytes) { return std::stoull(hash64(bytes), nullptr, 16); }

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(fmt::format("token shard '{}': {}", path, what));
}

std::string make_header(int bytes_per_token,
                        int64_t vocab_size,
                        size_t n_tokens,
                        std::string_view payload) {
  std::string header(kMagic);
  put(header, kVersion, 4);
  put(header, static_cast<uint64_t>(bytes_per_token), 4);
  put(header, 0, 4);
  put(header, static_cast<uint64_t>(vocab_size), 8);
  put(header, n_tokens, 8);
  put(header, hash_number(payload), 8);
  put(header, 0, 8);
  put(header, 0, 8);
  put(header, hash_number(header), 8);
  return header;
}

void check_header(const std::string& path, const char* header) {
  const std::string_view magic(header, kMagic.size());
  if (magic != kMagic) fail(path, "expected magic 'DSMT'; run 'dsmoe tokenize' first");
  if (hash_number({header, kHashedBytes}) != get(header + kHashedBytes, 8)) {
    fail(path, "the header was altered; make the data set again");
  }
  if (get(header + 4, 4) != kVersion) {
    fail(path, fmt::format("expected version {}, got {}", kVersion, get(header + 4, 4)));
  }
}

}  // namespace

void write_token_shard(Io& io,
                       const std::string& path,
                       const std::vector<int32_t>& tokens,
                       int64_t vocab_size) {
  if (vocab_size < 1 || vocab_size > std::numeric_limits<int32_t>::max()) {
    fail(path, fmt::format("expected a vocabulary of 1 to 2^31 - 1 ids, got {}", vocab_size));
  }
  const int bytes_per_token = vocab_size <= kMaxVocab16 ? 2 : 4;
  std::string payload;
  payload.reserve(tokens.size() * static_cast<size_t>(bytes_per_token));
  for (const int32_t id : tokens) {
    if (id < 0 || id >= vocab_size) {
      fail(path, fmt::format("expected ids in [0, {}), got {}", vocab_size, id));
    }
    put(payload, static_cast<uint64_t>(id), bytes_per_token);
  }
  const std::string header = make_header(bytes_per_token, vocab_size, tokens.size(), payload);
  payload.insert(0, header);
  write_file(io, path, payload);
}

TokenShard::TokenShard(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail(path, fmt::format("cannot open: {}", std::strerror(errno)));
  try {
    read_header();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

void TokenShard::read_header() {
  struct stat status {};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) fail(path_, "expected a file");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size < kHeaderBytes) {
    fail(path_, fmt::format("expected at least {} bytes, got {}", kHeaderBytes, size));
  }
  char header[kHeaderBytes];
  read_all(posix_io(), fd_, header, kHeaderBytes, 0, path_);
  check_header(path_, header);
  const uint64_t bytes_per_token = get(header + 8, 4);
  const uint64_t vocab_size = get(header + 16, 8);
  const uint64_t n_tokens = get(header + 24, 8);
  if ((bytes_per_token != 2 && bytes_per_token != 4) || vocab_size < 1 ||
      vocab_size > std::numeric_limits<int32_t>::max()) {
    fail(path_, fmt::format("{} bytes per token, {} ids", bytes_per_token, vocab_size));
  }
  const uint64_t payload_bytes = size - kHeaderBytes;
  if (payload_bytes % bytes_per_token != 0 || payload_bytes / bytes_per_token != n_tokens) {
    fail(path_,
         fmt::format("expected {} tokens of {} bytes, got {} bytes",
                     n_tokens,
                     bytes_per_token,
                     payload_bytes));
  }
  bytes_per_token_ = static_cast<int>(bytes_per_token);
  vocab_size_ = static_cast<int64_t>(vocab_size);
  n_tokens_ = static_cast<int64_t>(n_tokens);
  payload_hash_ = fmt::format("{:016x}", get(header + 32, 8));
}

TokenShard::~TokenShard() {
  if (fd_ >= 0) ::close(fd_);
}

TokenShard::TokenShard(TokenShard&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      n_tokens_(other.n_tokens_),
      vocab_size_(other.vocab_size_),
      bytes_per_token_(other.bytes_per_token_),
      payload_hash_(std::move(other.payload_hash_)) {}

void TokenShard::read_payload(int64_t begin, size_t n_tokens, std::string& bytes) const {
  struct stat status {};
  const int64_t expected = static_cast<int64_t>(kHeaderBytes) + n_tokens_ * bytes_per_token_;
  if (::fstat(fd_, &status) != 0 || status.st_size < expected) {
    fail(path_, "the file became shorter since it was opened");
  }
  bytes.resize(n_tokens * static_cast<size_t>(bytes_per_token_));
  const uint64_t offset = kHeaderBytes + static_cast<uint64_t>(begin * bytes_per_token_);
  read_all(posix_io(), fd_, bytes.data(), bytes.size(), offset, path_);
}

void TokenShard::decode(int64_t begin, const std::string& bytes, std::span<int32_t> out) const {
  for (size_t i = 0; i < out.size(); ++i) {
    const auto step = static_cast<size_t>(bytes_per_token_);
    const uint64_t id = get(bytes.data() + i * step, bytes_per_token_);
    if (id >= static_cast<uint64_t>(vocab_size_)) {
      fail(path_,
           fmt::format("expected ids in [0, {}), got {} at token {}",
                       vocab_size_,
                       id,
                       begin + static_cast<int64_t>(i)));
    }
    out[i] = static_cast<int32_t>(id);
  }
}

void TokenShard::copy(int64_t begin, std::span<int32_t> out) const {
  const auto n_tokens = static_cast<int64_t>(out.size());
  if (begin < 0 || begin > n_tokens_ || n_tokens > n_tokens_ - begin) {
    fail(path_,
         fmt::format(
             "expected a range inside [0, {}), got {} tokens from {}", n_tokens_, n_tokens, begin));
  }
  std::string bytes;
  read_payload(begin, out.size(), bytes);
  decode(begin, bytes, out);
}

void TokenShard::verify() const {
  StreamHash hash;
  std::string bytes;
  std::vector<int32_t> ids;
  for (int64_t begin = 0; begin < n_tokens_; begin += static_cast<int64_t>(ids.size())) {
    ids.resize(std::min(kChunkTokens, static_cast<size_t>(n_tokens_ - begin)));
    read_payload(begin, ids.size(), bytes);
    hash.add(bytes);
    decode(begin, bytes, ids);
  }
  if (hash.hash64() != payload_hash_) {
    fail(path_,
         fmt::format("expected payload hash {}, got {}; the file was altered",
                     payload_hash_,
                     hash.hash64()));
  }
}

}  // namespace dsmoe
