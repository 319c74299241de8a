#include "data/token_shard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/error.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

constexpr size_t kChunkTokens = 1 << 16;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(fmt::format("token shard '{}': {}", path, what));
}

uint64_t start_offset(const TokenShardHeader& header, int64_t document) {
  return header.starts_offset() + static_cast<uint64_t>(document) * TokenShardHeader::kStartBytes;
}

TokenShardHeader read_header(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) fail(path, "expected a file");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size < TokenShardHeader::kBytes) {
    fail(path, fmt::format("expected at least {} bytes, got {}", TokenShardHeader::kBytes, size));
  }
  std::string bytes(TokenShardHeader::kBytes, '\0');
  read_all(posix_io(), fd, bytes.data(), bytes.size(), 0, path);
  const auto header = decode_shard_header(bytes, path);
  if (header.file_bytes() != size) {
    fail(path,
         fmt::format("expected {} tokens of {} bytes and {} document starts, {} bytes in all, got "
                     "{} bytes",
                     header.n_tokens,
                     header.bytes_per_token,
                     header.n_documents,
                     header.file_bytes(),
                     size));
  }
  return header;
}

}  // namespace

TokenShard::TokenShard(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail(path, fmt::format("cannot open: {}", std::strerror(errno)));
  try {
    header_ = read_header(fd_, path);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

TokenShard::~TokenShard() {
  if (fd_ >= 0) ::close(fd_);
}

TokenShard::TokenShard(TokenShard&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), header_(other.header_) {}

std::string TokenShard::payload_hash() const {
  return fmt::format("{:016x}", header_.payload_hash);
}

bool TokenShard::made_by(const std::string& tokenizer_fingerprint) const {
  return header_.tokenizer_hash == hash_number(tokenizer_fingerprint);
}

void TokenShard::read_bytes(uint64_t offset, std::string& bytes) const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0 || static_cast<uint64_t>(status.st_size) < header_.file_bytes()) {
    fail(path_, "the file became shorter since it was opened");
  }
  read_all(posix_io(), fd_, bytes.data(), bytes.size(), offset, path_);
}

void TokenShard::decode(int64_t begin, const std::string& bytes, std::span<int32_t> out) const {
  for (size_t i = 0; i < out.size(); ++i) {
    const auto step = static_cast<size_t>(header_.bytes_per_token);
    const uint64_t id = get_number(bytes.data() + i * step, header_.bytes_per_token);
    if (id >= static_cast<uint64_t>(header_.vocab_size)) {
      fail(path_,
           fmt::format("expected ids in [0, {}), got {} at token {}",
                       header_.vocab_size,
                       id,
                       begin + static_cast<int64_t>(i)));
    }
    out[i] = static_cast<int32_t>(id);
  }
}

void TokenShard::copy(int64_t begin, std::span<int32_t> out) const {
  const auto n_tokens = static_cast<int64_t>(out.size());
  if (begin < 0 || begin > size() || n_tokens > size() - begin) {
    fail(path_,
         fmt::format(
             "expected a range inside [0, {}), got {} tokens from {}", size(), n_tokens, begin));
  }
  const auto step = static_cast<uint64_t>(header_.bytes_per_token);
  std::string bytes(out.size() * step, '\0');
  read_bytes(TokenShardHeader::kBytes + static_cast<uint64_t>(begin) * step, bytes);
  decode(begin, bytes, out);
}

int64_t TokenShard::decode_start(const char* bytes) const {
  const uint64_t start = get_number(bytes, TokenShardHeader::kStartBytes);
  if (start >= static_cast<uint64_t>(size())) {
    fail(path_, fmt::format("expected document starts below {}, got {}", size(), start));
  }
  return static_cast<int64_t>(start);
}

int64_t TokenShard::document_start(int64_t index) const {
  std::string bytes(TokenShardHeader::kStartBytes, '\0');
  read_bytes(start_offset(header_, index), bytes);
  return decode_start(bytes.data());
}

int64_t TokenShard::documents_before(int64_t position) const {
  int64_t low = 0;
  int64_t high = n_documents();
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (document_start(middle) < position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void TokenShard::append_document_starts(int64_t begin,
                                        int64_t end,
                                        int64_t shift,
                                        std::vector<int64_t>& out) const {
  int64_t previous = begin - 1;
  for (int64_t i = documents_before(begin); i < n_documents(); ++i) {
    const int64_t start = document_start(i);
    if (start <= previous) fail(path_, fmt::format("document {} does not rise", i));
    if (start >= end) return;
    out.push_back(start + shift);
    previous = start;
  }
}

void TokenShard::verify() const {
  StreamHash hash;
  std::string bytes;
  std::vector<int32_t> ids;
  const auto step = static_cast<uint64_t>(header_.bytes_per_token);
  for (int64_t begin = 0; begin < size(); begin += static_cast<int64_t>(ids.size())) {
    ids.resize(std::min(kChunkTokens, static_cast<size_t>(size() - begin)));
    bytes.resize(ids.size() * step);
    read_bytes(TokenShardHeader::kBytes + static_cast<uint64_t>(begin) * step, bytes);
    hash.add(bytes);
    decode(begin, bytes, ids);
  }
  for (int64_t first = 0, previous = -1; first < n_documents();) {
    const int64_t count = std::min<int64_t>(kChunkTokens, n_documents() - first);
    bytes.resize(static_cast<size_t>(count) * TokenShardHeader::kStartBytes);
    read_bytes(start_offset(header_, first), bytes);
    hash.add(bytes);
    for (size_t i = 0; i < bytes.size(); i += TokenShardHeader::kStartBytes, ++first) {
      const int64_t start = decode_start(bytes.data() + i);
      if (start <= previous) fail(path_, fmt::format("document {} does not rise", first));
      previous = start;
    }
  }
  if (hash.hash64() != payload_hash()) {
    fail(path_,
         fmt::format("expected payload hash {}, got {}; the file was altered",
                     payload_hash(),
                     hash.hash64()));
  }
}

}  // namespace dsmoe
