#include "model/io/checkpoint_reader.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "common/config_reader.h"
#include "common/error.h"
#include "common/log.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxConfigBytes = 1 << 20;

void check_source(const StoredTensor& source) {
  const auto& target = source.target;
  if (!target.sizes().equals(source.entry.shape)) {
    throw Error(fmt::format("{}: '{}': expected shape [{}], got [{}]",
                            source.path,
                            source.entry.name,
                            fmt::join(target.sizes(), ", "),
                            fmt::join(source.entry.shape, ", ")));
  }
  const auto expected = dtype_name(target.scalar_type());
  if (source.entry.dtype != expected) {
    throw Error(fmt::format("{}: '{}': expected {}, got {}",
                            source.path,
                            source.entry.name,
                            expected,
                            source.entry.dtype));
  }
}

}  // namespace

std::vector<std::string> list_checkpoints(const std::string& run_directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(fs::path(run_directory) / "checkpoints", error), end;
       !error && it != end;
       it.increment(error)) {
    const auto name = it->path().filename().string();
    if (name.rfind("step-", 0) == 0) names.push_back(it->path().string());
  }
  // Step numbers have a fixed width, so names sort like steps.
  std::sort(names.rbegin(), names.rend());
  return names;
}

std::optional<VerifiedCheckpoint> find_newest_checkpoint(Io& io, const std::string& run_directory) {
  const auto directories = list_checkpoints(run_directory);
  for (const auto& directory : directories) {
    try {
      return VerifiedCheckpoint{directory, verify_checkpoint(io, directory)};
    } catch (const Error& error) {
      log_warning(fmt::format("checkpoint skipped: {}", error.what()));
    }
  }
  if (directories.empty()) return std::nullopt;
  throw Error(fmt::format("{}: expected a valid checkpoint, got {} that are all damaged",
                          run_directory,
                          directories.size()));
}

VerifiedCheckpoint find_checkpoint(Io& io, const std::string& path) {
  if (!fs::is_directory(path)) {
    throw Error(fmt::format("{}: expected a checkpoint or run directory, got none", path));
  }
  if (!fs::is_directory(fs::path(path) / "checkpoints")) {
    return {path, verify_checkpoint(io, path)};
  }
  auto found = find_newest_checkpoint(io, path);
  if (!found) throw Error(fmt::format("{}: expected a checkpoint in the run, got none yet", path));
  return *found;
}

ModelConfig read_model_config(Io& io, const std::string& directory) {
  const auto path = directory + "/config.json";
  const auto json = parse_json(read_file(io, path, kMaxConfigBytes), path, kMaxConfigBytes);
  if (!json.is_object() || !json.contains("model")) {
    throw Error(fmt::format("{}: expected a section 'model', got none", path));
  }
  ModelConfig config;
  const nlohmann::json section = {{"model", json["model"]}};
  read_config_text(
      section.dump(), path, {}, [&](ConfigVisitor& visitor) { describe(visitor, config); });
  config.validate();
  return config;
}

std::vector<StoredTensor> match_tensors(Io& io,
                                        const VerifiedCheckpoint& checkpoint,
                                        const std::string& prefix,
                                        const NamedTensors& targets) {
  std::map<std::string, StoredTensor> sources;
  for (const auto& record : checkpoint.manifest.files) {
    if (record.name.rfind(prefix, 0) != 0 || !record.name.ends_with(".safetensors")) continue;
    const auto path = checkpoint.directory + "/" + record.name;
    const auto file = std::make_shared<const SafetensorsFile>(io, path);
    for (const auto& entry : file->tensors()) {
      if (!sources.emplace(entry.name, StoredTensor{file, path, entry, {}}).second) {
        throw Error(fmt::format("{}: '{}' is in another file too", path, entry.name));
      }
    }
  }
  std::vector<StoredTensor> matched;
  for (const auto& [name, target] : targets) {
    const auto source = sources.find(name);
    if (source == sources.end()) {
      throw Error(fmt::format("{}: expected tensor '{}', got none", checkpoint.directory, name));
    }
    matched.push_back(source->second);
    matched.back().target = target;
    check_source(matched.back());
  }
  if (sources.size() != targets.size()) {
    for (const auto& [name, target] : targets) sources.erase(name);
    throw Error(fmt::format("{}: '{}' is not a tensor of this model",
                            sources.begin()->second.path,
                            sources.begin()->first));
  }
  return matched;
}

void load_tensors(Io& io,
                  const VerifiedCheckpoint& checkpoint,
                  const std::string& prefix,
                  const NamedTensors& targets) {
  const at::NoGradGuard no_grad;
  for (const auto& [file, path, entry, target] : match_tensors(io, checkpoint, prefix, targets)) {
    auto value = at::empty(target.sizes(), target.options().device(at::kCPU).requires_grad(false));
    file->read(entry, value.data_ptr());
    target.detach().copy_(value);
  }
}

Transformer load_model(Io& io, const VerifiedCheckpoint& checkpoint) {
  Transformer model(read_model_config(io, checkpoint.directory));
  load_tensors(io, checkpoint, "model-", named_tensors(*model));
  model->eval();
  return model;
}

}  // namespace dsmoe
