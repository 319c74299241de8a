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
};

/// Writes and retains the checkpoints of one run: `RUN/checkpoints/step-00000120/`, complete or not
/// there, whenever the process or the machine stops.
class CheckpointStore {
 public:
  /// keep: number of newest checkpoints that survive a save.
  CheckpointStore(Io& io, std::string run_directory, int64_t keep);

  /// Removes what an interrupted save or removal left. Call under the run's lock.
  void clean();

  /// Saves as the manifest's step: a temporary directory, every file fsynced, the manifest last,
  /// renamed, read back and verified; then the hint `latest`, then older ones are removed. A step
  /// that is there and valid is left alone. Throws RunError if a tensor is not finite or a write
  /// failed; the temporary directory is gone then and older checkpoints are untouched. Returns the
  /// directory.
  std::string save(const CheckpointContents& contents);

 private:
  void write_files(const CheckpointContents& contents, const std::string& directory);
  void remove_old();

  Io& io_;
  std::string run_directory_;
  std::string checkpoints_;
  int64_t keep_;
};

}  // namespace dsmoe
