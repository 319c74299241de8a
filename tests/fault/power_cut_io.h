#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// Real files under one directory, with a record of the state that fsync has made durable: the
/// bytes of each file and the names in each directory. The state of the directory at the start is
/// durable. The fsyncs themselves are not carried out. May be used by several threads.
class PowerCutIo final : public Io {
 public:
  /// The unsynced data that a power cut loses.
  enum class Loss {
    kBytes,        ///< contents revert to the last sync, names stay
    kNames,        ///< directories revert to the last sync, contents stay
    kAll,          ///< both
    kRandomSubset  ///< each name change and each 16-byte piece of a file by its own coin
  };

  explicit PowerCutIo(const std::string& root);

  /// Rewrites the directory to a state that a power cut could leave now. Open descriptors of files
  /// in it must no longer be used.
  void cut(Loss loss, uint64_t seed = 0);

  int open(const std::string& path, int flags, mode_t mode) override;
  ssize_t write(int fd, const void* data, size_t size_bytes) override;
  ssize_t pread(int fd, void* data, size_t size_bytes, off_t offset) override;
  int ftruncate(int fd, off_t size_bytes) override;
  int fsync(int fd) override;
  int close(int fd) override;
  int rename(const std::string& from, const std::string& to) override;
  int rename_no_replace(const std::string& from, const std::string& to) override;
  int exchange(const std::string& a, const std::string& b) override;
  int link(const std::string& from, const std::string& to) override;
  int mkdir(const std::string& path, mode_t mode) override;
  int unlink(const std::string& path) override;
  int rmdir(const std::string& path) override;

 private:
  struct Node;
  using NodePtr = std::shared_ptr<Node>;
  using Names = std::map<std::string, NodePtr>;
  // A change of a directory that is not yet durable. A rename inside one directory is one change.
  struct Change {
    std::string removed;
    std::string added;
    NodePtr node;
  };
  struct Node {
    bool is_directory = false;
    std::string content, durable_content;
    Names names, durable_names;
    std::vector<Change> changes;
  };
  struct Survivor;

  NodePtr scan(const std::string& path) const;
  NodePtr find(const std::string& path) const;
  void change(const std::string& removed, const std::string& added, const NodePtr& node);
  void write_out(const Node& node, const std::string& path, Survivor& survivor) const;

  std::string root_;
  std::mutex mutex_;  // guards the members below
  NodePtr top_;
  std::map<int, NodePtr> open_;  // by descriptor
};

}  // namespace dsmoe
