#include "data/megatron_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/error.h"
#include "data/token_shard_header.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxIndexBytes = uint64_t{8} << 30;
constexpr uint64_t kHashedBlocks = 1024;
constexpr uint64_t kBlockBytes = 4096;

}  // namespace

MegatronSource::MegatronSource(Io& io, const std::string& prefix, int64_t vocab_size)
    : io_(io), path_(prefix + ".bin"), vocab_size_(vocab_size) {
  const std::string index_path = prefix + ".idx";
  const auto index_bytes = read_file(io, index_path, kMaxIndexBytes);
  index_ = parse_megatron_index(index_bytes, index_path);
  fd_ = io.open(path_, O_RDONLY, 0);
  if (fd_ < 0) throw Error(fmt::format("{}: cannot open: {}", path_, std::strerror(errno)));
  try {
    const auto expected =
        static_cast<uint64_t>(index_.n_tokens) * static_cast<uint64_t>(index_.bytes_per_token);
    if (size_bytes() != expected) {
      throw Error(fmt::format("{}: expected {} tokens of {} bytes, got {} bytes",
                              path_,
                              index_.n_tokens,
                              index_.bytes_per_token,
                              size_bytes()));
    }
    hash_ = hash_of_pair(index_bytes);
  } catch (...) {
    io_.close(fd_);
    throw;
  }
}

MegatronSource::~MegatronSource() { io_.close(fd_); }

uint64_t MegatronSource::size_bytes() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) {
    throw Error(fmt::format("{}: cannot be read: {}", path_, std::strerror(errno)));
  }
  return static_cast<uint64_t>(status.st_size);
}

std::string MegatronSource::hash_of_pair(std::string_view index_bytes) const {
  StreamHash hash;
  hash.add(index_bytes);
  const uint64_t size = size_bytes();
  hash.add(&size, sizeof(size));
  const uint64_t step = std::max(size / kHashedBlocks, kBlockBytes);
  std::string block;
  for (uint64_t offset = 0; offset < size; offset += step) {
    block.resize(std::min(kBlockBytes, size - offset));
    read_all(io_, fd_, block.data(), block.size(), offset, path_);
    hash.add(block);
  }
  return hash.hash128();
}

void MegatronSource::copy(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  if (begin < 0 || begin > n_tokens() || count > n_tokens() - begin) {
    throw Error(fmt::format("{}: expected a range inside [0, {}), got {} tokens from {}",
                            path_,
                            n_tokens(),
                            count,
                            begin));
  }
  const auto width = static_cast<size_t>(index_.bytes_per_token);
  std::string bytes(out.size() * width, '\0');
  read_all(io_, fd_, bytes.data(), bytes.size(), static_cast<uint64_t>(begin) * width, path_);
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t id = get_number(bytes.data() + i * width,
                                   index_.bytes_per_token);  // a negative id is a large number
    if (id >= static_cast<uint64_t>(vocab_size_)) {
      throw Error(fmt::format("{}: expected ids in [0, {}), got {} at token {}",
                              path_,
                              vocab_size_,
                              static_cast<int32_t>(id),
                              begin + static_cast<int64_t>(i)));
    }
    out[i] = static_cast<int32_t>(id);
  }
}

std::vector<int64_t> MegatronSource::document_starts(int64_t begin, int64_t end) const {
  const auto& starts = index_.document_starts;
  const auto first = std::lower_bound(starts.begin(), starts.end(), begin);
  return {first, std::lower_bound(first, starts.end(), end)};
}

int64_t MegatronSource::documents_before(int64_t position) const {
  const auto& starts = index_.document_starts;
  return std::lower_bound(starts.begin(), starts.end(), position) - starts.begin();
}

bool MegatronSource::exists(const std::string& prefix) {
  std::error_code ignored;
  const bool has_index = std::filesystem::is_regular_file(prefix + ".idx", ignored);
  const bool has_tokens = std::filesystem::is_regular_file(prefix + ".bin", ignored);
  if (has_index != has_tokens && !std::filesystem::exists(prefix, ignored)) {
    throw Error(fmt::format("{}{}: expected it beside {}{}, got none",
                            prefix,
                            has_index ? ".bin" : ".idx",
                            prefix,
                            has_index ? ".idx" : ".bin"));
  }
  return has_index && has_tokens;
}

}  // namespace dsmoe
