#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/io.h"
#include "formats/checkpoint_manifest.h"
#include "model/named_tensors.h"

namespace dsmoe {

/// Everything one checkpoint holds. Tensors are float32 and finite.
struct CheckpointContents {
  CheckpointManifest manifest;  ///< without its files
  NamedTensors model;
  NamedTensors optimizer;
  /// Name and bytes of further files: config.json, the tokenizer's, the training state.
  std::vector<std::pair<std::string, std::string>> files;
  int64_t best_step = 0;  ///< the saved step of the lowest validation loss so far; 0: none yet
};

/// Which checkpoints survive a save, besides the one just saved.
struct Retention {
  int64_t keep_last = 2;   ///< newest ones, the one just saved among them; at least 1
  int64_t keep_every = 0;  ///< steps divisible by it are never removed; 0: none
  bool keep_best = false;  ///< the one of the lowest validation loss stays while it is the best
};

/// Writes and retains the checkpoints of one run: `RUN/checkpoints/step-00000120/`. A checkpoint is
/// complete or absent at any time that the process or the machine stops.
class CheckpointStore {
 public:
  CheckpointStore(Io& io, std::string run_directory, const Retention& retention);

  /// Removes what an interrupted save, removal or replacement of a file of the run left, and
  /// nothing else. Call under the run's lock.
  void clean();

  /// Renames checkpoints past `step` to `.damaged-step-*`, with a warning: the run goes on from
  /// `step` and saves these steps again. Throws RunError.
  void set_aside_after(int64_t step);

  /// Saves as the manifest's step: a temporary directory, every file fsynced, the manifest last,
  /// renamed, read back and verified; then the hints `latest` and `best`, then older ones are
  /// removed. Keeps a valid checkpoint of the step unchanged. Throws RunError if a tensor is not
  /// finite, a write failed or the written bytes do not read back; the temporary directory is gone
  /// then and older checkpoints are untouched. Returns the directory.
  /// Uses no thread but the caller's.
  std::string save(const CheckpointContents& contents);

  /// Last part of a save, for a verified checkpoint: writes the hints `latest` and, from step 1 on,
  /// `best`, and removes the checkpoints that need not be kept. A run calls it for the checkpoint
  /// that it resumes from, because the previous process may have died before it. Throws RunError.
  void publish(int64_t step, int64_t best_step);

 private:
  std::string write(const CheckpointContents& contents);
  void write_files(const CheckpointContents& contents, const std::string& directory);
  bool is_there(const std::string& directory);
  void verify_written(const std::string& directory);
  void set_aside(const std::string& directory, const std::string& reason);
  void point_to(const std::string& hint, const std::string& name);
  bool is_kept(int64_t step, int64_t newest_step, int64_t best_step) const;
  void remove_old(int64_t newest_step, int64_t best_step);

  Io& io_;
  std::string run_directory_;
  std::string checkpoints_;
  Retention retention_;
};

}  // namespace dsmoe
