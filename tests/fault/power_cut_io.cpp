#include "fault/power_cut_io.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr size_t kPieceBytes = 16;

std::string parent_of(const std::string& path) { return fs::path(path).parent_path().string(); }
std::string name_of(const std::string& path) { return fs::path(path).filename().string(); }

}  // namespace

// Decides the remaining state of one node.
struct PowerCutIo::Survivor {
  Loss loss;
  std::mt19937_64 random;

  bool coin() { return (random() & 1) != 0; }

  Names names(const Node& node) {
    if (loss == Loss::kBytes) return node.names;
    Names kept = node.durable_names;
    if (loss != Loss::kRandomSubset) return kept;
    for (const auto& change : node.changes) {
      if (!coin()) continue;
      kept.erase(change.removed);
      if (!change.added.empty()) kept[change.added] = change.node;
    }
    return kept;
  }

  std::string content(const Node& node) {
    if (loss == Loss::kNames) return node.content;
    if (loss != Loss::kRandomSubset) return node.durable_content;
    auto kept = coin() ? node.content : node.durable_content;
    const auto& other = node.content == kept ? node.durable_content : node.content;
    for (size_t begin = 0; begin < kept.size(); begin += kPieceBytes) {
      if (!coin()) continue;
      const size_t end = std::min(begin + kPieceBytes, kept.size());
      for (size_t i = begin; i < end; ++i) kept[i] = i < other.size() ? other[i] : '\0';
    }
    return kept;
  }
};

PowerCutIo::PowerCutIo(const std::string& root) : root_(root), top_(scan(root)) {}

PowerCutIo::NodePtr PowerCutIo::scan(const std::string& path) const {
  auto node = std::make_shared<Node>();
  node->is_directory = fs::is_directory(path);
  if (node->is_directory) {
    for (const auto& item : fs::directory_iterator(path)) {
      node->names[item.path().filename().string()] = scan(item.path().string());
    }
    node->durable_names = node->names;
  } else {
    node->content = node->durable_content = read_file(posix_io(), path, uint64_t{1} << 30);
  }
  return node;
}

PowerCutIo::NodePtr PowerCutIo::find(const std::string& path) const {
  auto node = top_;
  for (const auto& part : fs::path(path).lexically_relative(root_)) {
    if (part.string() == "." || part.empty()) continue;
    const auto found = node->names.find(part.string());
    if (found == node->names.end()) return nullptr;
    node = found->second;
  }
  return node;
}

// Paths; an empty one means nothing removed or added.
void PowerCutIo::change(const std::string& removed, const std::string& added, const NodePtr& node) {
  const auto parent = find(parent_of(added.empty() ? removed : added));
  if (!removed.empty() && !added.empty() && parent_of(removed) != parent_of(added)) {
    throw std::logic_error("PowerCutIo: renames between directories are not modelled");
  }
  const Change made{name_of(removed), name_of(added), node};
  parent->names.erase(made.removed);
  if (!made.added.empty()) parent->names[made.added] = node;
  parent->changes.push_back(made);
}

int PowerCutIo::open(const std::string& path, int flags, mode_t mode) {
  const std::lock_guard lock(mutex_);
  const int fd = posix_io().open(path, flags, mode);
  if (fd < 0) return fd;
  auto node = find(path);
  if (node == nullptr) {
    node = std::make_shared<Node>();
    change("", path, node);
  }
  if ((flags & O_TRUNC) != 0) node->content.clear();
  open_[fd] = node;
  return fd;
}

ssize_t PowerCutIo::write(int fd, const void* data, size_t size_bytes) {
  const std::lock_guard lock(mutex_);
  const ssize_t n = posix_io().write(fd, data, size_bytes);
  // Our writes all go to the end of a file.
  if (n > 0) open_.at(fd)->content.append(static_cast<const char*>(data), static_cast<size_t>(n));
  return n;
}

ssize_t PowerCutIo::pread(int fd, void* data, size_t size_bytes, off_t offset) {
  return posix_io().pread(fd, data, size_bytes, offset);
}

int PowerCutIo::ftruncate(int fd, off_t size_bytes) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().ftruncate(fd, size_bytes);
  if (result == 0) open_.at(fd)->content.resize(static_cast<size_t>(size_bytes), '\0');
  return result;
}

int PowerCutIo::fsync(int fd) {
  const std::lock_guard lock(mutex_);
  const auto& node = open_.at(fd);
  node->durable_content = node->content;
  node->durable_names = node->names;
  node->changes.clear();
  return 0;
}

int PowerCutIo::close(int fd) {
  const std::lock_guard lock(mutex_);
  open_.erase(fd);
  return posix_io().close(fd);
}

int PowerCutIo::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().rename(from, to);
  if (result == 0) change(from, to, find(from));
  return result;
}

int PowerCutIo::rename_no_replace(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().rename_no_replace(from, to);
  if (result == 0) change(from, to, find(from));
  return result;
}

// Two changes: a power cut may keep either one.
int PowerCutIo::exchange(const std::string& a, const std::string& b) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().exchange(a, b);
  if (result != 0) return result;
  const auto first = find(a);
  const auto second = find(b);
  change("", a, second);
  change("", b, first);
  return result;
}

int PowerCutIo::link(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().link(from, to);
  if (result == 0) change("", to, find(from));
  return result;
}

int PowerCutIo::mkdir(const std::string& path, mode_t mode) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().mkdir(path, mode);
  if (result != 0) return result;
  const auto node = std::make_shared<Node>();
  node->is_directory = true;
  change("", path, node);
  return result;
}

int PowerCutIo::unlink(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().unlink(path);
  if (result == 0) change(path, "", nullptr);
  return result;
}

int PowerCutIo::rmdir(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const int result = posix_io().rmdir(path);
  if (result == 0) change(path, "", nullptr);
  return result;
}

void PowerCutIo::write_out(const Node& node, const std::string& path, Survivor& survivor) const {
  if (!node.is_directory) {
    std::ofstream(path, std::ios::binary) << survivor.content(node);
    return;
  }
  fs::create_directories(path);
  for (const auto& [name, child] : survivor.names(node)) {
    write_out(*child, path + "/" + name, survivor);
  }
}

void PowerCutIo::cut(Loss loss, uint64_t seed) {
  const std::lock_guard lock(mutex_);
  for (const auto& item : fs::directory_iterator(root_)) fs::remove_all(item.path());
  Survivor survivor{loss, std::mt19937_64(seed)};
  write_out(*top_, root_, survivor);
  top_ = scan(root_);
  open_.clear();
}

}  // namespace dsmoe
