#pragma once

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

namespace dsmoe {

/// A file of the shared data beside the source tree, or empty, with a warning, where it is not.
inline std::string shared_data(const std::string& name) {
  const std::string path = DSMOE_SOURCE_DIR "/../shared/data/" + name;
  if (std::filesystem::exists(path)) return path;
  WARN("skipped: " << path << " is not there");
  return "";
}

}  // namespace dsmoe
