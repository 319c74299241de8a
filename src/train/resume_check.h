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

/// Throws Error if the checkpoint was trained on other tokens; logs a warning for another program
/// or torch version, with which the same bits are not promised.
void check_origin(const CheckpointManifest& manifest,
                  const std::string& dataset_hash,
                  const std::string& code_version,
                  const std::string& torch_version);

}  // namespace dsmoe
