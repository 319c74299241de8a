#pragma once

#include <string>
#include <vector>

#include "common/config_reader.h"
#include "formats/checkpoint_manifest.h"
#include "train/train_config.h"

namespace dsmoe {

/// Compares the config of a run that resumes with that of its checkpoint, each key by its resume
/// rule. Throws Error naming a fixed key that differs. Returns the applied keys that differ, each
/// logged as a warning; free keys that differ are in neither.
std::vector<ConfigChange> check_config_change(const RunConfig& saved, const RunConfig& now);

/// Origin of a run besides its config.
struct RunOrigin {
  std::string dataset_hash;
  std::string tokenizer_fingerprint;
  std::string code_version;
  std::string torch_version;
};

/// Throws Error if the checkpoint was trained on other tokens or with another tokenizer; the hash
/// of foreign token files does not cover the tokenizer. Logs a warning for another program or torch
/// version: results may then differ in bits.
void check_origin(const CheckpointManifest& manifest, const RunOrigin& origin);

}  // namespace dsmoe
