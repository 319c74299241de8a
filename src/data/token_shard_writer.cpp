#include "data/token_shard_writer.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(fmt::format("token shard '{}': {}", path, what));
}

int open_for_writing(Io& io, const std::string& path, int flags) {
  const int fd = io.open(path, O_WRONLY | flags, kFileMode);
  if (fd < 0) throw RunError(fmt::format("{}: cannot create: {}", path, std::strerror(errno)));
  return fd;
}

}  // namespace

TokenShardWriter::TokenShardWriter(Io& io,
                                   std::string path,
                                   int64_t vocab_size,
                                   const std::string& tokenizer)
    : io_(io), path_(std::move(path)) {
  if (vocab_size < 1 || vocab_size > std::numeric_limits<int32_t>::max()) {
    refuse(path_, fmt::format("expected a vocabulary of 1 to 2^31 - 1 ids, got {}", vocab_size));
  }
  header_.vocab_size = vocab_size;
  header_.bytes_per_token = bytes_per_token(vocab_size);
  header_.tokenizer_hash = hash_number(tokenizer);
  fd_ = open_for_writing(io_, path_, O_CREAT | O_TRUNC);
  const std::string placeholder(TokenShardHeader::kBytes, '\0');
  write_all(io_, fd_, placeholder.data(), placeholder.size(), path_);
}

TokenShardWriter::~TokenShardWriter() {
  if (fd_ >= 0) io_.close(fd_);
}

void TokenShardWriter::start_document() { starts_.push_back(header_.n_tokens); }

void TokenShardWriter::add(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= header_.vocab_size) {
      refuse(path_, fmt::format("expected ids in [0, {}), got {}", header_.vocab_size, id));
    }
    put_number(buffer_, static_cast<uint64_t>(id), header_.bytes_per_token);
    if (buffer_.size() >= kBufferBytes) flush();
  }
  header_.n_tokens += static_cast<int64_t>(ids.size());
}

void TokenShardWriter::flush() {
  hash_.add(buffer_);
  write_all(io_, fd_, buffer_.data(), buffer_.size(), path_);
  buffer_.clear();
}

// A failed fsync may be reported once and the data dropped: the file counts as lost.
void TokenShardWriter::close(int fd) {
  const bool synced = io_.fsync(fd) == 0;
  if (io_.close(fd) != 0 || !synced) {
    throw RunError(fmt::format("{}: cannot be made durable: {}", path_, std::strerror(errno)));
  }
}

ShardRecord TokenShardWriter::finish() {
  for (const int64_t start : starts_) {
    put_number(buffer_, static_cast<uint64_t>(start), TokenShardHeader::kStartBytes);
  }
  flush();
  close(std::exchange(fd_, -1));
  header_.n_documents = static_cast<int64_t>(starts_.size());
  header_.payload_hash = std::stoull(hash_.hash64(), nullptr, 16);
  const std::string header = encode_shard_header(header_);
  fd_ = open_for_writing(io_, path_, 0);
  write_all(io_, fd_, header.data(), header.size(), path_);
  close(std::exchange(fd_, -1));
  return {"", header_.n_tokens, header_.n_documents, hash_.hash64()};
}

}  // namespace dsmoe
