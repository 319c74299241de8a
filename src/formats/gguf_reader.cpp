#include "formats/gguf_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxHeaderBytes = 256 << 20;
constexpr uint64_t kMaxDimensions = 4;
constexpr uint64_t kReadBytes = 1 << 20;

// The header as a stream bounded by the end of the file; memory grows only with bytes that exist.
class HeaderReader {
 public:
  HeaderReader(Io& io, int fd, const std::string& path, uint64_t file_bytes)
      : io_(io), fd_(fd), path_(path), end_(std::min(file_bytes, kMaxHeaderBytes)) {}

  template <class T>
  T number() {
    T value;
    take(&value, sizeof(value));
    return value;
  }
  std::string text() {
    const auto size = number<uint64_t>();
    check_left(size);
    std::string value(size, '\0');
    take(value.data(), size);
    return value;
  }
  GgufValue value() {
    switch (const auto type = number<uint32_t>()) {
      case 4:
        return number<uint32_t>();
      case 6:
        return number<float>();
      case 7:
        return number<uint8_t>() != 0;
      case 8:
        return text();
      case 9:
        return array();
      default:
        fail(fmt::format("metadata of type {} is not supported", type));
    }
  }
  uint64_t position() const { return position_; }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}: byte {}: {}", path_, position_, what));
  }
  /// Checks that `count` items of at least `each` bytes still fit.
  void check_count(uint64_t count, uint64_t each) const {
    if (count > (end_ - position_) / each) fail(fmt::format("{} items do not fit", count));
  }

 private:
  void check_left(uint64_t size) const {
    if (size > end_ - position_) fail(fmt::format("expected {} more bytes of header", size));
  }
  void take(void* data, uint64_t size) {
    check_left(size);
    auto* out = static_cast<char*>(data);
    while (size > 0) {
      if (used_ == chunk_.size()) load();
      const auto n = std::min<uint64_t>(size, chunk_.size() - used_);
      std::memcpy(out, chunk_.data() + used_, n);
      used_ += n, position_ += n, out += n, size -= n;
    }
  }
  void load() {
    chunk_.resize(std::min(kReadBytes, end_ - position_));
    read_all(io_, fd_, chunk_.data(), chunk_.size(), position_, path_);
    used_ = 0;
  }
  GgufValue array() {
    const auto type = number<uint32_t>();
    const auto count = number<uint64_t>();
    if (type == 5) return numbers<int32_t>(count);
    if (type == 6) return numbers<float>(count);
    if (type != 8) fail(fmt::format("arrays of type {} are not supported", type));
    check_count(count, sizeof(uint64_t));
    std::vector<std::string> values;
    for (uint64_t i = 0; i < count; ++i) values.push_back(text());
    return values;
  }
  template <class T>
  std::vector<T> numbers(uint64_t count) {
    check_count(count, sizeof(T));
    std::vector<T> values(count);
    if (count > 0) take(values.data(), count * sizeof(T));
    return values;
  }

  Io& io_;
  int fd_;
  const std::string& path_;
  uint64_t end_;
  uint64_t position_ = 0;
  std::vector<char> chunk_;
  size_t used_ = 0;
};

GgufType type_of(uint32_t number, const HeaderReader& header) {
  for (const auto type : {GgufType::kF32, GgufType::kF16, GgufType::kBf16}) {
    if (static_cast<uint32_t>(type) == number) return type;
  }
  header.fail(fmt::format("tensors of type {} are not supported", number));
}

GgufTensor read_tensor(HeaderReader& header, uint64_t file_bytes) {
  GgufTensor tensor;
  tensor.name = header.text();
  const auto n_dimensions = header.number<uint32_t>();
  if (n_dimensions > kMaxDimensions) header.fail("expected at most 4 dimensions");
  uint64_t size = 1;
  for (uint32_t i = 0; i < n_dimensions; ++i) {
    const auto length = header.number<uint64_t>();
    if (__builtin_mul_overflow(size, length, &size) || size > file_bytes) {
      header.fail(fmt::format("'{}' is larger than the file", tensor.name));
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(length));
  }
  tensor.type = type_of(header.number<uint32_t>(), header);
  return tensor;
}

}  // namespace

GgufFile::GgufFile(Io& io, const std::string& path)
    : io_(&io), path_(path), fd_(io.open(path, O_RDONLY | O_CLOEXEC, 0)) {
  if (fd_ < 0) throw Error(fmt::format("{}: cannot be opened: {}", path, strerror(errno)));
  try {
    read_header();
  } catch (...) {
    io.close(fd_);
    throw;
  }
}

GgufFile::~GgufFile() { io_->close(fd_); }

void GgufFile::read_header() {
  struct stat info = {};
  if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Error(fmt::format("{}: expected a regular file", path_));
  }
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  HeaderReader header(*io_, fd_, path_, file_bytes);
  std::string magic;
  for (int i = 0; i < 4; ++i) magic += header.number<char>();
  const auto version = header.number<uint32_t>();
  if (magic != "GGUF" || version < 2 || version > 3) {
    header.fail("expected a GGUF file of version 2 or 3");
  }
  const auto n_tensors = header.number<uint64_t>();
  const auto n_values = header.number<uint64_t>();
  header.check_count(n_values, sizeof(uint64_t) + sizeof(uint32_t));
  std::set<std::string> seen;
  const auto check_once = [&](const std::string& name) {
    if (!seen.insert(name).second) {
      header.fail(fmt::format("expected '{}' once, got it twice", name));
    }
  };
  for (uint64_t i = 0; i < n_values; ++i) {
    auto key = header.text();
    check_once(key);
    auto value = header.value();
    metadata_.emplace_back(std::move(key), std::move(value));
  }
  header.check_count(n_tensors, 2 * sizeof(uint64_t) + 2 * sizeof(uint32_t));
  for (uint64_t i = 0; i < n_tensors; ++i) {
    tensors_.push_back(read_tensor(header, file_bytes));
    check_once(tensors_.back().name);
    offsets_.push_back(header.number<uint64_t>());
  }
  data_begin_ = (header.position() + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const uint64_t size = tensors_[i].size_bytes();
    if (offsets_[i] % kGgufAlignment != 0 || data_begin_ > file_bytes ||
        offsets_[i] > file_bytes - data_begin_ || size > file_bytes - data_begin_ - offsets_[i]) {
      header.fail(fmt::format("'{}' lies outside the file", tensors_[i].name));
    }
  }
}

const GgufValue* GgufFile::find_value(const std::string& key) const {
  for (const auto& [name, value] : metadata_) {
    if (name == key) return &value;
  }
  return nullptr;
}

const GgufTensor* GgufFile::find_tensor(const std::string& name) const {
  for (const auto& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

void GgufFile::read(const GgufTensor& tensor, void* data) const {
  const auto index = static_cast<size_t>(&tensor - tensors_.data());
  read_all(*io_, fd_, data, tensor.size_bytes(), data_begin_ + offsets_.at(index), path_);
}

}  // namespace dsmoe
