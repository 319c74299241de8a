#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace dsmoe {

/// Bytes of this process's pages in memory, from a walk of its page tables. /proc/self/statm and
/// VmHWM are sums of per-core counters: on a machine of many cores they may be hundreds of MiB off.
inline int64_t mapped_resident_bytes() {
  std::ifstream mappings("/proc/self/smaps");
  int64_t kibibytes = 0;
  for (std::string line; std::getline(mappings, line);) {
    if (!line.starts_with("Rss:")) continue;
    int64_t of_mapping = 0;
    std::istringstream(line.substr(4)) >> of_mapping;
    kibibytes += of_mapping;
  }
  return kibibytes * 1024;
}

}  // namespace dsmoe
