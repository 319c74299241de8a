#include "formats/tensor_source.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <set>

#include "common/error.h"
#include "formats/sharded_index.h"

namespace dsmoe {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr uint64_t kMaxIndexBytes = 100'000'000;

void check_index(const std::map<std::string, std::string>& file_of_tensor,
                 const SafetensorsSource& source,
                 const std::string& path) {
  std::set<std::string> found;
  for (const auto& entry : source.tensors()) {
    if (!file_of_tensor.contains(entry.name)) {
      throw Error(fmt::format("{}: does not name '{}', which a shard holds", path, entry.name));
    }
    found.insert(entry.name);
  }
  for (const auto& [name, file] : file_of_tensor) {
    if (!found.contains(name)) {
      throw Error(fmt::format("{}: expected '{}' in {}, got none", path, name, file));
    }
  }
}

}  // namespace

SafetensorsSource::SafetensorsSource(Io& io, const std::vector<std::string>& paths) {
  std::set<std::string> names;
  files_.reserve(paths.size());
  for (const auto& path : paths) {
    const auto& file = files_.emplace_back(io, path);
    for (const auto& entry : file.tensors()) {
      if (!names.insert(entry.name).second) {
        throw Error(fmt::format("{}: '{}' is in another file too", path, entry.name));
      }
      tensors_.push_back(entry);
      file_of_tensor_.push_back(files_.size() - 1);
    }
  }
}

void SafetensorsSource::read(const TensorEntry& entry, void* data) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].name == entry.name) return files_[file_of_tensor_[i]].read(tensors_[i], data);
  }
  throw Error(fmt::format("safetensors: expected a tensor of these files, got '{}'", entry.name));
}

SafetensorsSource open_sharded_safetensors(Io& io, const std::string& directory) {
  const auto single = directory + "/" + kSingleFile;
  if (std::filesystem::exists(single)) return SafetensorsSource(io, {single});
  const auto path = directory + "/" + kIndexFile;
  if (!std::filesystem::exists(path)) {
    throw Error(fmt::format("{}: expected {} or {}, got neither; pickled .bin weights are not read",
                            directory,
                            kSingleFile,
                            kIndexFile));
  }
  const auto file_of_tensor = parse_sharded_index(read_file(io, path, kMaxIndexBytes), path);
  std::set<std::string> shards;
  for (const auto& [name, file] : file_of_tensor) shards.insert(file);
  std::vector<std::string> paths;
  for (const auto& shard : shards) {
    const auto shard_path = directory + "/" + shard;
    if (!std::filesystem::exists(shard_path)) {
      throw Error(fmt::format("{}: expected the shard {}, got none", path, shard));
    }
    paths.push_back(shard_path);
  }
  SafetensorsSource source(io, paths);
  check_index(file_of_tensor, source, path);
  return source;
}

}  // namespace dsmoe
