#include "common/staged_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>

#include "common/error.h"
#include "common/log.h"
#include "common/random_seed.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

using Fill = std::function<void(const std::string& temporary)>;

constexpr const char* kWayOut = "choose another name, or pass --force to replace it";
constexpr const char* kInfix = ".tmp-";
constexpr size_t kMaxNameBytes = 160;  // of the target inside a temporary's name; names end at 255

[[noreturn]] void fail_run(const std::string& path, const char* what) {
  throw RunError(fmt::format("{}: cannot {}: {}", path, what, std::strerror(errno)));
}

fs::file_status status_of(const std::string& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored);
}

bool is_empty_directory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(status_of(path)) && fs::is_empty(path, error) && !error;
}

std::string parent_of(const std::string& path) {
  const auto parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

// Without a slash at the end.
std::string target_of(const std::string& path) {
  auto normal = fs::path(path).lexically_normal();
  if (!normal.has_filename()) normal = normal.parent_path();
  const auto name = normal.filename().string();
  if (name.empty() || name == "." || name == "..") {
    throw Error(fmt::format("'{}': expected the name of an output to make", path));
  }
  return normal.string();
}

// Resolves links to the file that will be replaced.
std::string follow_link(const std::string& path) {
  if (!fs::is_symlink(status_of(path))) return path;
  std::error_code error;
  const auto real = fs::weakly_canonical(path, error);
  if (error) throw RunError(fmt::format("{}: cannot follow: {}", path, error.message()));
  return real.string();
}

// A pipe or device, also behind a link such as /dev/stdout.
bool is_stream(const std::string& path) {
  std::error_code ignored;
  const auto status = fs::status(path, ignored);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

std::string temporary_name(const std::string& name) {
  static std::atomic<uint64_t> counter{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const auto draw = derive_seed(static_cast<uint64_t>(now), "temporary", counter++);
  return fmt::format(
      ".{}{}{}-{:08x}", name.substr(0, kMaxNameBytes), kInfix, ::getpid(), draw & 0xffffffffu);
}

enum class Kind { kFile, kDirectory };

// An empty file or directory that was not there before.
std::string make_temporary(Io& io, const std::string& target, Kind kind) {
  constexpr int kAttempts = 100;
  const fs::path parent = parent_of(target);
  const auto name = fs::path(target).filename().string();
  for (int i = 0; i < kAttempts; ++i) {
    const auto path = (parent / temporary_name(name)).string();
    if (kind == Kind::kDirectory) {
      if (io.mkdir(path, kDirectoryMode) == 0) return path;
    } else {
      const int fd = io.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kFileMode);
      if (fd >= 0) io.close(fd);
      if (fd >= 0) return path;
    }
    if (errno != EEXIST) break;
  }
  fail_run(target, "create");
}

// An output under its temporary name.
struct Staged {
  Io& io;
  std::string target;
  std::string temporary;
  bool holds_old_content = false;  // the temporary does, after a swap
};

// Only logs a failed removal: the failure that led here is the one to report.
void discard(Io& io, const std::string& path) {
  try {
    remove_tree(io, path);
  } catch (const std::exception& error) {
    log_warning(fmt::format("a temporary output is left: {}", error.what()));
  }
}

[[noreturn]] void fail_conflict(const std::string& target) {
  throw RunError(fmt::format(
      "{}: expected a free name, but another process made it meanwhile, and it stays; {}",
      target,
      kWayOut));
}

// Error numbers of a rename or link that the file system does not support.
bool is_unsupported(int error) {
  return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == EPERM;
}

// If renaming cannot refuse to replace, such as on NFS, makes a link; FAT has neither.
void publish_by_link(const Staged& staged) {
  const auto& [io, target, temporary, unused] = staged;
  if (io.link(temporary, target) == 0) {
    io.unlink(temporary);
    return;
  }
  if (errno == EEXIST) fail_conflict(target);
  if (!is_unsupported(errno)) fail_run(target, "rename into place");
  if (fs::exists(status_of(target))) fail_conflict(target);
  if (io.rename(temporary, target) != 0) fail_run(target, "rename into place");
}

void publish_file(const Staged& staged, Existing existing) {
  const auto& [io, target, temporary, unused] = staged;
  if (existing == Existing::kReplace) {
    if (io.rename(temporary, target) != 0) fail_run(target, "rename into place");
  } else if (io.rename_no_replace(temporary, target) != 0) {
    if (errno == EEXIST) fail_conflict(target);
    if (!is_unsupported(errno)) fail_run(target, "rename into place");
    publish_by_link(staged);
  }
  fsync_directory(io, parent_of(target));
}

// Without an atomic swap of two names, moves the old directory aside first.
void swap_in_two_steps(Staged& staged) {
  auto& [io, target, temporary, holds_old_content] = staged;
  const auto aside = make_temporary(io, target, Kind::kDirectory);
  if (io.rename(target, aside) != 0) {
    const int error = errno;
    io.rmdir(aside);
    errno = error;
    fail_run(target, "replace");
  }
  if (io.rename(temporary, target) != 0) {
    const int error = errno;
    if (io.rename(aside, target) != 0) log_warning("the old content is left as " + aside);
    errno = error;
    fail_run(target, "rename into place");
  }
  temporary = aside;
  holds_old_content = true;
}

void replace_directory(Staged& staged) {
  auto& [io, target, temporary, holds_old_content] = staged;
  if (io.exchange(temporary, target) == 0) {
    holds_old_content = true;
  } else if (is_unsupported(errno)) {
    swap_in_two_steps(staged);
  } else {
    fail_run(target, "replace");
  }
  try {
    fsync_directory(io, parent_of(target));
  } catch (const RunError&) {
    if (io.exchange(temporary, target) == 0) holds_old_content = false;
    throw;
  }
  discard(io, temporary);
}

// rename replaces an empty directory and fails for anything else.
void publish_directory(Staged& staged, const OutputDirectory& output) {
  auto& io = staged.io;
  if (io.rename(staged.temporary, staged.target) == 0) {
    fsync_directory(io, parent_of(staged.target));
    return;
  }
  if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) {
    fail_run(staged.target, "rename into place");
  }
  if (output.existing == Existing::kRefuse) fail_conflict(staged.target);
  check_output_directory(output);
  replace_directory(staged);
}

std::string with_target(std::string message, const Staged& staged) {
  for (size_t at = message.find(staged.temporary); at != std::string::npos;
       at = message.find(staged.temporary, at + staged.target.size())) {
    message.replace(at, staged.temporary.size(), staged.target);
  }
  return message;
}

// Errors name the target: the temporary no longer exists when a person reads the message.
void fill_and_publish(Staged& staged, const Fill& fill, const std::function<void()>& publish) {
  try {
    try {
      fill(staged.temporary);
    } catch (const Error& error) {
      throw Error(with_target(error.what(), staged));
    } catch (const RunError& error) {
      throw RunError(with_target(error.what(), staged));
    }
    publish();
  } catch (...) {
    if (staged.holds_old_content) {
      log_warning(
          fmt::format("{}: its old content is left as {}", staged.target, staged.temporary));
    } else {
      discard(staged.io, staged.temporary);
    }
    throw;
  }
}

[[noreturn]] void fail_existing(const std::string& path, const char* expected) {
  throw Error(fmt::format("{}: expected {}, got one that exists; {}", path, expected, kWayOut));
}

void write_stream(Io& io, const std::string& path, std::string_view bytes) {
  const int fd = io.open(path, O_WRONLY | O_CLOEXEC, 0);
  if (fd < 0) fail_run(path, "open");
  try {
    write_all(io, fd, bytes.data(), bytes.size(), path);
  } catch (...) {
    io.close(fd);
    throw;
  }
  if (io.close(fd) != 0) fail_run(path, "close");
}

}  // namespace

void check_output_file(const std::string& path, Existing existing) {
  const auto target = target_of(path);
  if (is_stream(target)) return;
  if (fs::exists(status_of(target))) {
    if (existing == Existing::kRefuse) fail_existing(path, "a new file");
    std::error_code ignored;
    if (fs::is_directory(fs::status(target, ignored))) {
      throw Error(fmt::format("{}: expected a file to replace, got a directory", path));
    }
  }
  const auto parent = parent_of(follow_link(target));
  std::error_code error;
  if (!fs::is_directory(parent, error)) {
    throw Error(fmt::format("{}: expected the directory {} to exist, got {}",
                            path,
                            parent,
                            fs::exists(parent, error) ? "a file" : "none"));
  }
  if (::access(parent.c_str(), W_OK) != 0) fail_run(path, "create");
}

void check_output_directory(const OutputDirectory& output) {
  const auto target = target_of(output.path);
  if (!fs::exists(status_of(target)) || is_empty_directory(target)) return;
  if (output.existing == Existing::kRefuse) fail_existing(output.path, "a new directory");
  const auto is_plain = [](const fs::directory_entry& entry) {
    return fs::is_regular_file(entry.symlink_status());
  };
  if (output.marker.empty() || !fs::is_directory(status_of(target)) ||
      !fs::is_regular_file(status_of(target + "/" + output.marker)) ||
      !std::all_of(fs::directory_iterator(target), fs::directory_iterator(), is_plain)) {
    throw Error(
        fmt::format("{}: --force expects an earlier output, a directory of plain files with '{}', "
                    "got something else; remove it yourself or choose another name",
                    output.path,
                    output.marker));
  }
}

void write_output_file(Io& io, const std::string& path, Existing existing, const Fill& fill) {
  check_output_file(path, existing);
  if (is_stream(path)) throw Error(fmt::format("{}: expected a file, got a pipe or device", path));
  const auto name = target_of(path);
  const auto target = existing == Existing::kReplace ? follow_link(name) : name;
  Staged staged{io, target, make_temporary(io, target, Kind::kFile)};
  fill_and_publish(staged, fill, [&] { publish_file(staged, existing); });
}

void write_output_file(Io& io, const std::string& path, std::string_view bytes, Existing existing) {
  if (is_stream(path)) return write_stream(io, path, bytes);
  write_output_file(
      io, path, existing, [&](const std::string& file) { write_file(io, file, bytes); });
}

void write_output_directory(Io& io, const OutputDirectory& output, const Fill& fill) {
  check_output_directory(output);
  const auto target = target_of(output.path);
  make_directories(io, parent_of(target));
  Staged staged{io, target, make_temporary(io, target, Kind::kDirectory)};
  const auto fill_and_sync = [&](const std::string& directory) {
    fill(directory);
    fsync_directory(io, directory);
  };
  fill_and_publish(staged, fill_and_sync, [&] { publish_directory(staged, output); });
}

void replace_file(Io& io, const std::string& path, std::string_view bytes) {
  write_output_file(io, path, bytes, Existing::kReplace);
}

bool is_temporary_of(std::string_view file_name, std::string_view name) {
  const auto head = fmt::format(".{}{}", name.substr(0, kMaxNameBytes), kInfix);
  if (file_name.substr(0, head.size()) != head) return false;
  const auto tail = file_name.substr(head.size());
  const auto dash = tail.find('-');
  if (dash == 0 || dash == std::string_view::npos || tail.size() - dash - 1 != 8) return false;
  const auto digits = tail.substr(0, dash);
  const auto draw = tail.substr(dash + 1);
  return digits.find_first_not_of("0123456789") == std::string_view::npos &&
         draw.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace dsmoe
