#include "train/checkpoint_store.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/error.h"
#include "common/log.h"
#include "model/io/checkpoint_reader.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

void check_finite(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!at::isfinite(tensor).all().item<bool>()) {
      throw RunError(fmt::format("checkpoint: '{}' holds a NaN or Inf; not saved", name));
    }
  }
}

FileRecord write_tensors(Io& io,
                         const std::string& directory,
                         const std::string& name,
                         const CheckpointManifest& manifest,
                         const NamedTensors& tensors) {
  std::vector<at::Tensor> keep_alive;
  std::vector<TensorBytes> bytes;
  for (const auto& [tensor_name, tensor] : tensors) {
    const auto& contiguous = keep_alive.emplace_back(tensor.detach().contiguous());
    bytes.push_back({tensor_name,
                     dtype_name(tensor.scalar_type()),
                     tensor.sizes().vec(),
                     contiguous.const_data_ptr()});
  }
  const auto written = write_safetensors(
      io,
      directory + "/" + name,
      {{"run_id", manifest.run_id}, {"step", std::to_string(manifest.step)}, {"rank", "0"}},
      bytes);
  return {name, written.size_bytes, written.hash, written.tensors, written.checksums};
}

std::string step_name(int64_t step) { return fmt::format("step-{:08}", step); }

}  // namespace

CheckpointStore::CheckpointStore(Io& io, std::string run_directory, int64_t keep)
    : io_(io),
      run_directory_(std::move(run_directory)),
      checkpoints_(run_directory_ + "/checkpoints"),
      keep_(keep) {}

void CheckpointStore::clean() {
  if (!fs::exists(checkpoints_)) return;
  std::vector<std::string> left;
  for (const auto& item : fs::directory_iterator(checkpoints_)) {
    const auto name = item.path().filename().string();
    if (name.rfind(".tmp-", 0) == 0 || name.rfind(".trash-", 0) == 0) {
      left.push_back(item.path().string());
    }
  }
  for (const auto& path : left) remove_tree(io_, path);
}

std::string CheckpointStore::save(const CheckpointContents& contents) {
  const at::NoGradGuard no_grad;
  const auto name = step_name(contents.manifest.step);
  const auto directory = checkpoints_ + "/" + name;
  const auto temporary = checkpoints_ + "/.tmp-" + name;
  if (fs::exists(directory)) {
    verify_checkpoint(io_, directory);
    return directory;
  }
  check_finite(contents.model);
  check_finite(contents.optimizer);
  try {
    make_directories(io_, checkpoints_);
    remove_tree(io_, temporary);
    make_directories(io_, temporary);
    write_files(contents, temporary);
    fsync_directory(io_, temporary);
    if (io_.rename(temporary, directory) != 0) {
      throw RunError(fmt::format("{}: rename failed: {}", directory, strerror(errno)));
    }
    fsync_directory(io_, checkpoints_);
  } catch (...) {
    try {
      remove_tree(io_, temporary);
    } catch (const RunError& error) {
      log_warning(fmt::format("a broken checkpoint could not be removed: {}", error.what()));
    }
    throw;
  }
  verify_checkpoint(io_, directory);
  replace_file(io_, run_directory_ + "/latest", name + "\n");
  remove_old();
  return directory;
}

void CheckpointStore::write_files(const CheckpointContents& contents,
                                  const std::string& directory) {
  auto manifest = contents.manifest;
  manifest.files.clear();
  for (const auto& [name, bytes] : contents.files) {
    write_file(io_, directory + "/" + name, bytes);
    manifest.files.push_back(describe_file(io_, directory, name));
    if (name == "config.json") manifest.config_hash = manifest.files.back().hash;
  }
  manifest.files.push_back(
      write_tensors(io_, directory, "model-00001-of-00001.safetensors", manifest, contents.model));
  manifest.files.push_back(write_tensors(
      io_, directory, "optimizer-rank-00000.safetensors", manifest, contents.optimizer));
  write_file(io_, directory + "/manifest.json", manifest_to_json(manifest));
}

void CheckpointStore::remove_old() {
  const auto directories = list_checkpoints(run_directory_);
  for (size_t i = static_cast<size_t>(keep_); i < directories.size(); ++i) {
    const auto trash = checkpoints_ + "/.trash-" + fs::path(directories[i]).filename().string();
    if (io_.rename(directories[i], trash) != 0) {
      throw RunError(fmt::format("{}: rename failed: {}", directories[i], strerror(errno)));
    }
    fsync_directory(io_, checkpoints_);
    remove_tree(io_, trash);
  }
}

}  // namespace dsmoe
