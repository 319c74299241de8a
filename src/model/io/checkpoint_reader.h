#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "formats/checkpoint_manifest.h"
#include "formats/safetensors.h"
#include "model/model_config.h"
#include "model/named_tensors.h"
#include "model/transformer.h"

namespace dsmoe {

/// A checkpoint directory; every file was compared with the manifest.
struct VerifiedCheckpoint {
  std::string directory;
  CheckpointManifest manifest;
};

/// Checkpoint directories of a run, newest step first; empty if there is none.
std::vector<std::string> list_checkpoints(const std::string& run_directory);

/// Returns the newest valid checkpoint of a run; skips an invalid newer one with a warning that
/// gives the reason. Empty if the run has no checkpoint; throws Error if it has some and none is
/// valid.
std::optional<VerifiedCheckpoint> find_newest_checkpoint(Io& io, const std::string& run_directory);

/// Verifies a checkpoint directory, or finds the newest valid checkpoint of a run directory. Throws
/// Error.
VerifiedCheckpoint find_checkpoint(Io& io, const std::string& path);

/// The `model` section of a checkpoint's config.json. Throws Error.
ModelConfig read_model_config(Io& io, const std::string& directory);

/// A tensor of a checkpoint and the tensor that it fills.
struct StoredTensor {
  std::shared_ptr<const SafetensorsFile> file;
  std::string path;
  TensorEntry entry;
  at::Tensor target;
};

/// Finds every target in the safetensors files of a checkpoint with names that begin with `prefix`;
/// returns them in the order of `targets`. Throws Error as load_tensors does.
std::vector<StoredTensor> match_tensors(Io& io,
                                        const VerifiedCheckpoint& checkpoint,
                                        const std::string& prefix,
                                        const NamedTensors& targets);

/// Fills `targets` from the safetensors files of a checkpoint with names that begin with `prefix`.
/// The files must contain exactly the targets, with their shapes and types. Throws Error naming
/// file and tensor; compares names, shapes and types before it changes any target.
void load_tensors(Io& io,
                  const VerifiedCheckpoint& checkpoint,
                  const std::string& prefix,
                  const NamedTensors& targets);

/// The model of a checkpoint, in evaluation mode.
Transformer load_model(Io& io, const VerifiedCheckpoint& checkpoint);

}  // namespace dsmoe
