#include "common/machine_resources.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// A line such as `MemTotal:  24561132 kB`.
int64_t meminfo_bytes(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    int64_t kibibytes = 0;
    if (word == name + ":" && file >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

// A number in a file of the control group; `max`, no file or no number: unlimited.
int64_t group_bytes(const std::string& name) {
  std::ifstream membership("/proc/self/cgroup");
  for (std::string line; std::getline(membership, line);) {
    if (!line.starts_with("0::")) continue;
    std::ifstream file("/sys/fs/cgroup" + line.substr(3) + "/" + name);
    int64_t bytes = 0;
    if (file >> bytes) return bytes;
  }
  return kUnlimited;
}

}  // namespace

int64_t machine_memory_bytes() {
  return std::min(meminfo_bytes("MemTotal"), group_bytes("memory.max"));
}

int64_t available_memory_bytes() {
  const int64_t limit = group_bytes("memory.max");
  const int64_t left =
      limit == kUnlimited ? limit : std::max<int64_t>(limit - group_bytes("memory.current"), 0);
  return std::min(meminfo_bytes("MemAvailable"), left);
}

int64_t free_disk_bytes(const std::string& path) {
  std::error_code error;
  auto place = fs::absolute(path, error);
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  const auto space = fs::space(place, error);
  return error ? 0 : static_cast<int64_t>(space.available);
}

}  // namespace dsmoe
