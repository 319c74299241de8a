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

/// A checkpoint directory all of whose bytes were compared with its manifest.
struct VerifiedCheckpoint {
  std::string directory;
  CheckpointManifest manifest;
};

/// Checkpoint directories of a run, newest step first; empty if there is none.
std::vector<std::string> list_checkpoints(const std::string& run_directory);

/// The newest valid checkpoint of a run; an invalid newer one is skipped with a warning that says
/// why. Empty if the run has no checkpoint at all; throws Error if none of those it has is valid.
std::optional<VerifiedCheckpoint> find_newest_checkpoint(Io& io, const std::string& run_directory);

/// A checkpoint directory, verified, or the newest valid one of a run directory. Throws Error.
VerifiedCheckpoint find_checkpoint(Io& io, const std::string& path);

/// The `model` section of a checkpoint's config.json. Throws Error.
ModelConfig read_model_config(Io& io, const std::string& directory);

/// A tensor of a checkpoint and what it belongs into.
struct StoredTensor {
  std::shared_ptr<const SafetensorsFile> file;
  std::string path;
  TensorEntry entry;
  at::Tensor target;
};

/// Finds every target in the safetensors files of a checkpoint whose names begin with `prefix`, in
/// the order of `targets`. Throws Error as load_tensors does.
std::vector<StoredTensor> match_tensors(Io& io,
                                        const VerifiedCheckpoint& checkpoint,
                                        const std::string& prefix,
                                        const NamedTensors& targets);

/// Fills `targets` from the safetensors files of a checkpoint whose names begin with `prefix`:
/// every target must be there with its shape and type, and nothing may be left over. Throws Error
/// naming file and tensor; names, shapes and types are compared before any target is changed.
void load_tensors(Io& io,
                  const VerifiedCheckpoint& checkpoint,
                  const std::string& prefix,
                  const NamedTensors& targets);

/// The model of a checkpoint, in evaluation mode.
Transformer load_model(Io& io, const VerifiedCheckpoint& checkpoint);

}  // namespace dsmoe
