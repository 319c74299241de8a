#include "formats/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "common/error.h"
#include "formats/hash.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kMinTreeBytes = 700'000;  // about 750 tensors
constexpr uint64_t kAlignment = 64;
constexpr std::array<std::pair<const char*, int64_t>, 10> kDtypes{{{"F64", 8},
                                                                   {"F32", 4},
                                                                   {"F16", 2},
                                                                   {"BF16", 2},
                                                                   {"I64", 8},
                                                                   {"I32", 4},
                                                                   {"I16", 2},
                                                                   {"I8", 1},
                                                                   {"U8", 1},
                                                                   {"BOOL", 1}}};

// 0 if there is no such dtype.
uint64_t element_size(const std::string& dtype) {
  for (const auto& [name, size] : kDtypes) {
    if (dtype == name) return static_cast<uint64_t>(size);
  }
  return 0;
}

// Bytes of a tensor; throws Error for an unknown dtype and where the product leaves 63 bits.
uint64_t size_of(const TensorEntry& entry, const std::string& who) {
  uint64_t size = element_size(entry.dtype);
  if (size == 0) {
    throw Error(
        fmt::format("{}: '{}': expected a known dtype, got '{}'", who, entry.name, entry.dtype));
  }
  bool empty = false;
  for (const int64_t length : entry.shape) {
    if (length == 0) {
      empty = true;
    } else if (length < 0 || __builtin_mul_overflow(size, static_cast<uint64_t>(length), &size) ||
               size > uint64_t{1} << 62) {
      throw Error(fmt::format(
          "{}: '{}': shape [{}] is out of range", who, entry.name, fmt::join(entry.shape, ", ")));
    }
  }
  return empty ? 0 : size;
}

TensorEntry parse_entry(const std::string& name,
                        const nlohmann::json& json,
                        const std::string& path) {
  TensorEntry entry;
  entry.name = name;
  try {
    if (!json.is_object() || json.size() != 3) throw Error("");
    json.at("dtype").get_to(entry.dtype);
    for (const auto& length : json.at("shape")) {
      if (!length.is_number_unsigned()) throw Error("");
      entry.shape.push_back(length.get<int64_t>());
    }
    const auto& offsets = json.at("data_offsets");
    if (!json.at("shape").is_array() || !offsets.is_array() || offsets.size() != 2 ||
        !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
      throw Error("");
    }
    entry.begin = offsets[0].get<uint64_t>();
    entry.end = offsets[1].get<uint64_t>();
  } catch (const std::exception&) {
    throw Error(
        fmt::format("{}: '{}': expected an object of dtype, shape and data_offsets", path, name));
  }
  return entry;
}

// In file order; the tensors must fill the data section without hole or overlap.
void check_layout(std::vector<TensorEntry>& entries, uint64_t data_bytes, const std::string& path) {
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t next = 0;
  for (const auto& entry : entries) {
    const uint64_t size = size_of(entry, path);
    if (entry.begin != next || entry.end < entry.begin || entry.end - entry.begin != size) {
      throw Error(fmt::format("{}: '{}': expected bytes {} to {}, got {} to {}",
                              path,
                              entry.name,
                              next,
                              next + size,
                              entry.begin,
                              entry.end));
    }
    next = entry.end;
  }
  if (next != data_bytes) {
    throw Error(fmt::format("{}: expected {} bytes of tensors, got {}", path, next, data_bytes));
  }
}

// A file that hashes the bytes written to it.
class HashingFile {
 public:
  HashingFile(Io& io, const std::string& path)
      : io_(io),
        path_(path),
        fd_(io.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode)) {
    if (fd_ < 0) fail("be created");
  }
  ~HashingFile() {
    if (fd_ >= 0) io_.close(fd_);
  }
  HashingFile(const HashingFile&) = delete;
  HashingFile& operator=(const HashingFile&) = delete;

  void write(const void* data, uint64_t size) {
    write_all(io_, fd_, data, size, path_);
    hash_.add(data, size);
    size_ += size;
  }
  // A failed fsync or close means that this file is lost.
  void finish() {
    if (io_.fsync(fd_) != 0) fail("be synced");
    const int fd = fd_;
    fd_ = -1;
    if (io_.close(fd) != 0) fail("be closed");
  }
  uint64_t size() const { return size_; }
  std::string hash() const { return hash_.hash128(); }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw RunError(fmt::format("{}: cannot {}: {}", path_, what, strerror(errno)));
  }
  Io& io_;
  std::string path_;
  int fd_;
  StreamHash hash_;
  uint64_t size_ = 0;
};

}  // namespace

int64_t dtype_size_bytes(const std::string& dtype) {
  const uint64_t size = element_size(dtype);
  if (size == 0) throw Error(fmt::format("safetensors: expected a known dtype, got '{}'", dtype));
  return static_cast<int64_t>(size);
}

std::string tensor_checksum(const TensorEntry& entry, const void* data) {
  StreamHash hash;
  hash.add(fmt::format("{}\n{}\n[{}]\n", entry.name, entry.dtype, fmt::join(entry.shape, ",")));
  hash.add(data, entry.end - entry.begin);
  return hash.hash64();
}

WrittenSafetensors write_safetensors(Io& io,
                                     const std::string& path,
                                     const std::map<std::string, std::string>& metadata,
                                     const std::vector<TensorBytes>& tensors) {
  struct Item {
    TensorEntry entry;
    const TensorBytes* source;
  };
  std::vector<Item> items;
  std::set<std::string> names;
  for (const auto& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      throw Error(fmt::format("{}: expected each tensor once, got '{}' twice", path, tensor.name));
    }
    Item item{{tensor.name, tensor.dtype, tensor.shape, 0, 0}, &tensor};
    item.entry.end = size_of(item.entry, path);
    items.push_back(std::move(item));
  }
  const auto is_loose = [](const Item& item) { return item.entry.end % kAlignment != 0; };
  std::sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
    return std::make_pair(is_loose(a), a.entry.name) < std::make_pair(is_loose(b), b.entry.name);
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t next = 0;
  for (auto& [entry, source] : items) {
    entry.begin = next;
    next = entry.end = entry.begin + entry.end;
    header[entry.name] = {
        {"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = header.dump();
  text.append((kAlignment - (text.size() + 8) % kAlignment) % kAlignment, ' ');

  WrittenSafetensors written;
  HashingFile file(io, path);
  const uint64_t header_bytes = text.size();
  file.write(&header_bytes, sizeof(header_bytes));
  file.write(text.data(), text.size());
  for (const auto& [entry, source] : items) {
    const void* data = source->data == nullptr && source->load ? source->load() : source->data;
    file.write(data, entry.end - entry.begin);
    written.tensors.push_back(entry);
    written.checksums.push_back(tensor_checksum(entry, data));
  }
  file.finish();
  written.size_bytes = file.size();
  written.hash = file.hash();
  return written;
}

SafetensorsFile::SafetensorsFile(Io& io, const std::string& path)
    : io_(&io), path_(path), fd_(io.open(path, O_RDONLY | O_CLOEXEC, 0)) {
  if (fd_ < 0) throw Error(fmt::format("{}: cannot be opened: {}", path, strerror(errno)));
  try {
    read_header();
  } catch (...) {
    io.close(fd_);
    throw;
  }
}

void SafetensorsFile::read_header() {
  struct stat info = {};
  if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Error(fmt::format("{}: expected a regular file", path_));
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  uint64_t header_bytes = 0;
  if (size < sizeof(header_bytes)) {
    throw Error(fmt::format("{}: expected a safetensors header, got {} bytes", path_, size));
  }
  read_all(*io_, fd_, &header_bytes, sizeof(header_bytes), 0, path_);
  if (header_bytes > kMaxHeaderBytes || header_bytes > size - sizeof(header_bytes)) {
    throw Error(fmt::format("{}: header of {} bytes is too long", path_, header_bytes));
  }
  std::string text(header_bytes, '\0');
  read_all(*io_, fd_, text.data(), header_bytes, sizeof(header_bytes), path_);
  // A header may not cost more memory than the tensors that it lists.
  const uint64_t data_bytes = size - sizeof(header_bytes) - header_bytes;
  const auto json = parse_json(
      text,
      path_,
      {.max_size_bytes = kMaxHeaderBytes, .max_tree_bytes = kMinTreeBytes + data_bytes / 2});
  if (text.empty() || text.front() != '{' || !json.is_object()) {
    throw Error(fmt::format("{}: expected a JSON object as header", path_));
  }
  for (const auto& [name, value] : json.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(parse_entry(name, value, path_));
      continue;
    }
    if (!value.is_object()) {
      throw Error(fmt::format("{}: expected __metadata__ to be an object", path_));
    }
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) {
        throw Error(fmt::format("{}: expected '{}' of __metadata__ to be a text", path_, key));
      }
      metadata_[key] = text_value.get<std::string>();
    }
  }
  data_begin_ = sizeof(header_bytes) + header_bytes;
  check_layout(tensors_, size - data_begin_, path_);
}

SafetensorsFile::~SafetensorsFile() {
  if (fd_ >= 0) io_->close(fd_);
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : io_(other.io_),
      path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      data_begin_(other.data_begin_),
      tensors_(std::move(other.tensors_)),
      metadata_(std::move(other.metadata_)) {}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  for (const auto& entry : tensors_) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

void SafetensorsFile::read(const TensorEntry& entry, void* data) const {
  read_all(*io_, fd_, data, entry.end - entry.begin, data_begin_ + entry.begin, path_);
}

}  // namespace dsmoe
