#pragma once

#include <string>
#include <vector>

#include "common/config_reader.h"
#include "train/train_config.h"

namespace dsmoe {

/// Reads the config of a run as a person writes it: names of other programs too (config_aliases.h),
/// an override of train.steps over the file's train.tokens, and so on. Without train.init_from, a
/// kind of attention or FFN that is left out is the one whose keys are set, and sizes that follow
/// from a name of another program are filled in as that program does. Each such reading is a note.
///
/// Throws ConfigError for every fault, among them keys that contradict each other (steps and
/// tokens).
GivenKeys read_run_config(const std::string& path,
                          const std::vector<std::string>& overrides,
                          RunConfig& config);

/// The same of a text; source_name is for messages.
GivenKeys read_run_config_text(const std::string& text,
                               const std::string& source_name,
                               const std::vector<std::string>& overrides,
                               RunConfig& config);

/// Throws ConfigError for the given keys of a kind that the config does not use. Keys of a file
/// that the program wrote, which sets the keys of every kind, pass; overrides of them do not. Call
/// it after inherit_model.
void check_used_keys(RunConfig config, const GivenKeys& given);

/// Logs the notes of a reading.
void log_notes(const GivenKeys& given);

}  // namespace dsmoe
