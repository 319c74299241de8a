#include "formats/gguf_writer.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>

#include "common/error.h"

namespace dsmoe {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint32_t kVersion = 3;
// Numbers of the metadata types.
constexpr uint32_t kUint32 = 4;
constexpr uint32_t kInt32 = 5;
constexpr uint32_t kFloat32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;

uint64_t aligned(uint64_t offset) {
  return (offset + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

class Bytes {
 public:
  template <class T>
  void number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void text(const std::string& value) {
    number<uint64_t>(value.size());
    text_ += value;
  }
  void value(const GgufValue& value) {
    std::visit([this](const auto& typed) { add(typed); }, value);
  }
  std::string take() { return std::move(text_); }

 private:
  void add(bool value) {
    number(kBool);
    number<uint8_t>(value ? 1 : 0);
  }
  void add(uint32_t value) {
    number(kUint32);
    number(value);
  }
  void add(float value) {
    number(kFloat32);
    number(value);
  }
  void add(const std::string& value) {
    number(kString);
    text(value);
  }
  void begin_array(uint32_t type, size_t size) {
    number(kArray);
    number(type);
    number<uint64_t>(size);
  }
  void add(const std::vector<int32_t>& values) {
    begin_array(kInt32, values.size());
    for (const int32_t value : values) number(value);
  }
  void add(const std::vector<float>& values) {
    begin_array(kFloat32, values.size());
    for (const float value : values) number(value);
  }
  void add(const std::vector<std::string>& values) {
    begin_array(kString, values.size());
    for (const auto& value : values) text(value);
  }
  std::string text_;
};

void check_once(std::set<std::string>& seen, const std::string& name, const std::string& path) {
  if (!seen.insert(name).second) {
    throw Error(fmt::format("{}: expected '{}' once, got it twice", path, name));
  }
}

std::string header_of(const GgufMetadata& metadata,
                      const std::vector<GgufTensor>& tensors,
                      const std::string& path) {
  Bytes bytes;
  for (const char letter : {'G', 'G', 'U', 'F'}) bytes.number(letter);
  bytes.number(kVersion);
  bytes.number<uint64_t>(tensors.size());
  bytes.number<uint64_t>(metadata.size());
  std::set<std::string> seen;
  for (const auto& [key, value] : metadata) {
    check_once(seen, key, path);
    bytes.text(key);
    bytes.value(value);
  }
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    check_once(seen, tensor.name, path);
    bytes.text(tensor.name);
    bytes.number(static_cast<uint32_t>(tensor.shape.size()));
    for (auto length = tensor.shape.rbegin(); length != tensor.shape.rend(); ++length) {
      bytes.number(static_cast<uint64_t>(*length));
    }
    bytes.number(static_cast<uint32_t>(tensor.type));
    bytes.number(offset);
    offset = aligned(offset + tensor.size_bytes());
  }
  auto text = bytes.take();
  text.resize(aligned(text.size()), '\0');
  return text;
}

}  // namespace

uint64_t gguf_type_size(GgufType type) { return type == GgufType::kF32 ? 4 : 2; }

uint64_t GgufTensor::size_bytes() const {
  return std::accumulate(
      shape.begin(), shape.end(), gguf_type_size(type), [](uint64_t size, int64_t length) {
        return size * static_cast<uint64_t>(length);
      });
}

GgufWriter::GgufWriter(Io& io,
                       std::string path,
                       const GgufMetadata& metadata,
                       std::vector<GgufTensor> tensors)
    : io_(io), path_(std::move(path)), tensors_(std::move(tensors)) {
  const auto header = header_of(metadata, tensors_, path_);
  fd_ = io.open(path_, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode);
  if (fd_ < 0) {
    throw RunError(fmt::format("{}: cannot be created: {}", path_, strerror(errno)));
  }
  write(header.data(), header.size());
}

GgufWriter::~GgufWriter() {
  if (fd_ >= 0) io_.close(fd_);
}

void GgufWriter::write(const void* data, uint64_t size_bytes) {
  write_all(io_, fd_, data, size_bytes, path_);
}

void GgufWriter::add(const void* data) {
  if (next_ == tensors_.size()) {
    throw Error(fmt::format("{}: expected {} tensors, got more", path_, tensors_.size()));
  }
  const uint64_t size = tensors_[next_++].size_bytes();
  write(data, size);
  const std::string padding(aligned(size) - size, '\0');
  if (!padding.empty()) write(padding.data(), padding.size());
}

void GgufWriter::finish() {
  if (next_ != tensors_.size()) {
    throw Error(fmt::format("{}: expected {} tensors, got {}", path_, tensors_.size(), next_));
  }
  if (io_.fsync(fd_) != 0) {
    throw RunError(fmt::format("{}: cannot be synced: {}", path_, strerror(errno)));
  }
  const int fd = fd_;
  fd_ = -1;
  if (io_.close(fd) != 0) {
    throw RunError(fmt::format("{}: cannot be closed: {}", path_, strerror(errno)));
  }
}

}  // namespace dsmoe
