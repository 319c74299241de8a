#include "formats/checkpoint_manifest.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "common/error.h"
#include "formats/hash.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kManifest = "manifest.json";
constexpr size_t kMaxManifestBytes = 100'000'000;
constexpr size_t kChunkBytes = 1 << 22;

Json to_json(const FileRecord& file) {
  Json tensors = Json::array();
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    const auto& tensor = file.tensors[i];
    tensors.push_back({{"name", tensor.name},
                       {"dtype", tensor.dtype},
                       {"shape", tensor.shape},
                       {"begin", tensor.begin},
                       {"end", tensor.end},
                       {"checksum", file.checksums[i]}});
  }
  return {{"name", file.name},
          {"size_bytes", file.size_bytes},
          {"hash", file.hash},
          {"tensors", tensors}};
}

FileRecord file_from_json(const nlohmann::json& json) {
  FileRecord file;
  json.at("name").get_to(file.name);
  json.at("size_bytes").get_to(file.size_bytes);
  json.at("hash").get_to(file.hash);
  for (const auto& tensor : json.at("tensors")) {
    TensorEntry entry;
    tensor.at("name").get_to(entry.name);
    tensor.at("dtype").get_to(entry.dtype);
    tensor.at("shape").get_to(entry.shape);
    tensor.at("begin").get_to(entry.begin);
    tensor.at("end").get_to(entry.end);
    file.tensors.push_back(std::move(entry));
    file.checksums.push_back(tensor.at("checksum").get<std::string>());
  }
  return file;
}

bool same(const TensorEntry& a, const TensorEntry& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin &&
         a.end == b.end;
}

// Returns size and hash of a regular file; drops its page cache first, so that the disk is read.
FileRecord hash_file(Io& io, const std::string& path, const std::string& name) {
  const int fd = io.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
  if (fd < 0) throw Error(fmt::format("{}: cannot be opened: {}", path, strerror(errno)));
  FileRecord record{.name = name, .size_bytes = 0, .hash = {}, .tensors = {}, .checksums = {}};
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  StreamHash hash;
  std::vector<char> chunk(kChunkBytes);
  for (;;) {
    const ssize_t n =
        io.pread(fd, chunk.data(), chunk.size(), static_cast<off_t>(record.size_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int reason = errno;
      io.close(fd);
      throw Error(fmt::format("{}: cannot be read: {}", path, strerror(reason)));
    }
    if (n == 0) break;
    hash.add(chunk.data(), static_cast<size_t>(n));
    record.size_bytes += static_cast<uint64_t>(n);
  }
  io.close(fd);
  record.hash = hash.hash128();
  return record;
}

std::set<std::string> list_files(const std::string& directory) {
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) {
    throw Error(fmt::format("{}: expected a checkpoint directory: {}", directory, strerror(errno)));
  }
  std::set<std::string> names;
  while (const dirent* item = readdir(stream)) {
    const std::string name = item->d_name;
    if (name != "." && name != "..") names.insert(name);
  }
  closedir(stream);
  return names;
}

void check_file_list(const CheckpointManifest& manifest, const std::string& directory) {
  auto names = list_files(directory);
  names.erase(kManifest);
  for (const auto& file : manifest.files) {
    if (names.erase(file.name) == 0) {
      throw Error(fmt::format("{}/{}: is missing", directory, file.name));
    }
    struct stat info = {};
    const auto path = directory + "/" + file.name;
    if (lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
      throw Error(fmt::format("{}: expected a regular file", path));
    }
    if (static_cast<uint64_t>(info.st_size) != file.size_bytes) {
      throw Error(
          fmt::format("{}: expected {} bytes, got {}", path, file.size_bytes, info.st_size));
    }
  }
  if (!names.empty()) {
    throw Error(fmt::format("{}/{}: is not in the manifest", directory, *names.begin()));
  }
}

// Compares the header with the manifest, then each tensor with its checksum; returns if none
// differs.
void check_tensors(Io& io,
                   const CheckpointManifest& manifest,
                   const FileRecord& expected,
                   const std::string& path) {
  const SafetensorsFile file(io, path);
  if (file.tensors().size() != expected.tensors.size()) {
    throw Error(fmt::format(
        "{}: expected {} tensors, got {}", path, expected.tensors.size(), file.tensors().size()));
  }
  const auto bound = [&](const char* key, const std::string& value) {
    const auto found = file.metadata().find(key);
    if (found != file.metadata().end() && found->second != value) {
      throw Error(fmt::format("{}: expected {} {}, got {}", path, key, value, found->second));
    }
  };
  bound("run_id", manifest.run_id);
  bound("step", std::to_string(manifest.step));
  std::vector<char> bytes;
  for (size_t i = 0; i < expected.tensors.size(); ++i) {
    const auto* entry = file.find(expected.tensors[i].name);
    if (entry == nullptr || !same(*entry, expected.tensors[i])) {
      throw Error(
          fmt::format("{}: tensor '{}' was altered in the header", path, expected.tensors[i].name));
    }
    bytes.resize(entry->end - entry->begin);
    file.read(*entry, bytes.data());
    if (tensor_checksum(*entry, bytes.data()) != expected.checksums[i]) {
      throw Error(
          fmt::format("{}: tensor '{}' was altered: its checksum differs", path, entry->name));
    }
  }
}

}  // namespace

void write_listed_files(Io& io,
                        const std::string& directory,
                        const std::vector<std::pair<std::string, std::string>>& files,
                        CheckpointManifest& manifest) {
  for (const auto& [name, bytes] : files) {
    write_file(io, directory + "/" + name, bytes);
    manifest.files.push_back({name, bytes.size(), hash128(bytes), {}, {}});
    if (name == "config.json") manifest.config_hash = manifest.files.back().hash;
  }
}

void write_manifest(Io& io, const std::string& directory, const CheckpointManifest& manifest) {
  write_file(io, directory + "/" + kManifest, manifest_to_json(manifest));
}

FileRecord describe_file(Io& io, const std::string& directory, const std::string& name) {
  return hash_file(io, directory + "/" + name, name);
}

std::string manifest_to_json(const CheckpointManifest& manifest) {
  Json files = Json::array();
  for (const auto& file : manifest.files) files.push_back(to_json(file));
  const Json json = {{"format_version", manifest.format_version},
                     {"run_id", manifest.run_id},
                     {"step", manifest.step},
                     {"world_size", manifest.world_size},
                     {"config_hash", manifest.config_hash},
                     {"dataset_hash", manifest.dataset_hash},
                     {"tokenizer_fingerprint", manifest.tokenizer_fingerprint},
                     {"code_version", manifest.code_version},
                     {"torch_version", manifest.torch_version},
                     {"files", files}};
  // The last line carries the hash of all lines before it.
  std::string text = json.dump(1);
  text.resize(text.size() - 2);  // "\n}"
  text += ",\n";
  return text + fmt::format(" \"manifest_hash\": \"{}\"\n}}\n", hash128(text));
}

CheckpointManifest parse_manifest(const std::string& text, const std::string& source_name) {
  const auto json = parse_json(text, source_name, kMaxManifestBytes);
  try {
    CheckpointManifest manifest;
    json.at("format_version").get_to(manifest.format_version);
    if (manifest.format_version > CheckpointManifest::kFormatVersion) {
      throw Error(fmt::format("{}: format version {}, this program reads up to {}",
                              source_name,
                              manifest.format_version,
                              CheckpointManifest::kFormatVersion));
    }
    json.at("run_id").get_to(manifest.run_id);
    json.at("step").get_to(manifest.step);
    json.at("world_size").get_to(manifest.world_size);
    json.at("config_hash").get_to(manifest.config_hash);
    json.at("dataset_hash").get_to(manifest.dataset_hash);
    json.at("tokenizer_fingerprint").get_to(manifest.tokenizer_fingerprint);
    json.at("code_version").get_to(manifest.code_version);
    json.at("torch_version").get_to(manifest.torch_version);
    for (const auto& file : json.at("files")) {
      manifest.files.push_back(file_from_json(file));
      const auto& name = manifest.files.back().name;
      if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) {
        throw Error(fmt::format("{}: expected plain file names, got '{}'", source_name, name));
      }
    }
    // Only the exact text that this program would write is a manifest: this covers every bit of it.
    if (manifest_to_json(manifest) != text) {
      throw Error(fmt::format("{}: was altered: its own checksum differs", source_name));
    }
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not a checkpoint manifest: {}", source_name, error.what()));
  }
}

CheckpointManifest read_manifest(Io& io, const std::string& directory) {
  const auto path = directory + "/" + kManifest;
  return parse_manifest(read_file(io, path, kMaxManifestBytes), path);
}

CheckpointManifest verify_checkpoint(Io& io, const std::string& directory) {
  auto manifest = read_manifest(io, directory);
  check_file_list(manifest, directory);
  for (const auto& file : manifest.files) {
    const auto path = directory + "/" + file.name;
    // Tensors first, since they name the damage; the hash of the file covers the bytes between
    // them.
    if (file.name.ends_with(".safetensors")) check_tensors(io, manifest, file, path);
    if (hash_file(io, path, file.name).hash != file.hash) {
      throw Error(fmt::format("{}: was altered: its hash differs", path));
    }
  }
  return manifest;
}

}  // namespace dsmoe
