#include "train/checkpoint_store.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <filesystem>

#include "common/error.h"
#include "common/log.h"
#include "common/staged_output.h"
#include "model/io/checkpoint_reader.h"
#include "train/finite.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

void check_finite(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (const auto index = first_non_finite(tensor)) {
      throw RunError(
          fmt::format("checkpoint: '{}' holds a NaN or Inf at {}; not saved", name, *index));
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

constexpr const char* kTemporaryPrefix = ".tmp-";
constexpr const char* kTrashPrefix = ".trash-";

// Returns -1 for other names.
int64_t step_of(const std::string& directory) {
  const auto name = fs::path(directory).filename().string();
  if (name.rfind("step-", 0) != 0) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + std::strlen("step-"), end, step);
  return error == std::errc{} && stop == end ? step : -1;
}

// A directory of checkpoints/ that an interrupted save or removal leaves.
bool is_unfinished_step(const std::string& name) {
  for (const std::string prefix : {kTemporaryPrefix, kTrashPrefix}) {
    if (name.rfind(prefix, 0) == 0 && step_of(name.substr(prefix.size())) >= 0) return true;
  }
  return false;
}

// A file of the run directory that an interrupted replace_file of the run leaves.
bool is_temporary_of_run(const std::string& name) {
  for (const char* target : {"latest", "best", "config.yaml", "metrics.jsonl"}) {
    if (is_temporary_of(name, target)) return true;
  }
  return false;
}

}  // namespace

CheckpointStore::CheckpointStore(Io& io, std::string run_directory, const Retention& retention)
    : io_(io),
      run_directory_(std::move(run_directory)),
      checkpoints_(run_directory_ + "/checkpoints"),
      retention_(retention) {}

void CheckpointStore::clean() {
  std::vector<std::string> left;
  const auto collect = [&](const std::string& directory, bool (*is_left)(const std::string&)) {
    if (!fs::exists(directory)) return;
    for (const auto& item : fs::directory_iterator(directory)) {
      if (is_left(item.path().filename().string())) left.push_back(item.path().string());
    }
  };
  collect(run_directory_, is_temporary_of_run);
  collect(checkpoints_, is_unfinished_step);
  for (const auto& path : left) remove_tree(io_, path);
}

void CheckpointStore::set_aside_after(int64_t step) {
  for (const auto& directory : list_checkpoints(run_directory_)) {
    if (step_of(directory) > step) {
      set_aside(directory, fmt::format("the run goes on from step {}", step));
    }
  }
}

void CheckpointStore::set_aside(const std::string& directory, const std::string& reason) {
  // Keeps one that was set aside before.
  const auto name = checkpoints_ + "/.damaged-" + fs::path(directory).filename().string();
  auto aside = name;
  for (int i = 2; fs::exists(fs::symlink_status(aside)); ++i) aside = fmt::format("{}.{}", name, i);
  log_warning(fmt::format("{} is set aside as {}: {}", directory, aside, reason));
  rename_durably(io_, directory, aside);
}

std::string CheckpointStore::save(const CheckpointContents& contents) {
  const auto directory = write(contents);
  publish(contents.manifest.step, contents.best_step);
  return directory;
}

void CheckpointStore::publish(int64_t step, int64_t best_step) {
  point_to("latest", step_name(step));
  if (best_step > 0) point_to("best", step_name(best_step));
  remove_old(step, best_step);
}

// Ends with a verified directory.
std::string CheckpointStore::write(const CheckpointContents& contents) {
  const at::NoGradGuard no_grad;
  const auto name = step_name(contents.manifest.step);
  const auto directory = checkpoints_ + "/" + name;
  const auto temporary = checkpoints_ + "/" + kTemporaryPrefix + name;
  check_finite(contents.model);
  check_finite(contents.optimizer);
  if (is_there(directory)) return directory;
  write_directory(io_, temporary, directory, [&] { write_files(contents, temporary); });
  verify_written(directory);
  return directory;
}

bool CheckpointStore::is_there(const std::string& directory) {
  if (!fs::exists(directory)) return false;
  try {
    verify_checkpoint(io_, directory);
    return true;
  } catch (const Error& error) {
    set_aside(directory, error.what());
    return false;
  }
}

void CheckpointStore::verify_written(const std::string& directory) {
  try {
    verify_checkpoint(io_, directory);
  } catch (const Error& error) {
    set_aside(directory, "its bytes differ from those written");
    throw RunError(fmt::format("checkpoint: written, but {}", error.what()));
  }
}

void CheckpointStore::write_files(const CheckpointContents& contents,
                                  const std::string& directory) {
  auto manifest = contents.manifest;
  manifest.files.clear();
  write_listed_files(io_, directory, contents.files, manifest);
  manifest.files.push_back(
      write_tensors(io_, directory, "model-00001-of-00001.safetensors", manifest, contents.model));
  manifest.files.push_back(write_tensors(
      io_, directory, "optimizer-rank-00000.safetensors", manifest, contents.optimizer));
  write_manifest(io_, directory, manifest);
}

void CheckpointStore::point_to(const std::string& hint, const std::string& name) {
  replace_file(io_, run_directory_ + "/" + hint, name + "\n");
}

bool CheckpointStore::is_kept(int64_t step, int64_t newest_step, int64_t best_step) const {
  if (step < 0 || step >= newest_step) return true;
  if (retention_.keep_every > 0 && step > 0 && step % retention_.keep_every == 0) return true;
  return retention_.keep_best && step == best_step;
}

void CheckpointStore::remove_old(int64_t newest_step, int64_t best_step) {
  int64_t n_older = 0;
  for (const auto& directory : list_checkpoints(run_directory_)) {
    const int64_t step = step_of(directory);
    if (step < newest_step) ++n_older;
    if (n_older < retention_.keep_last || is_kept(step, newest_step, best_step)) continue;
    // Renamed first, so that a half-removed directory never has the name of a checkpoint.
    const auto trash = checkpoints_ + "/" + kTrashPrefix + fs::path(directory).filename().string();
    rename_durably(io_, directory, trash);
    remove_tree(io_, trash);
  }
}

}  // namespace dsmoe
