#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/config_reader.h"
#include "common/io.h"
#include "train/train_config.h"

namespace dsmoe {

/// A checkpoint that a run with train.init_from begins with.
struct InitSource {
  std::string directory;
  ModelConfig model;
  std::string tokenizer_fingerprint;
  bool is_own = false;  ///< a checkpoint of the run itself, to resume from: init_from is not used
};

/// Finds the checkpoint that provides the weights of this config and reads its config and manifest:
/// the checkpoint to resume from if there is one, else train.init_from. Empty without
/// train.init_from.
///
/// resume   as for `dsmoe train --resume`
/// Throws Error if train.init_from is no checkpoint.
std::optional<InitSource> find_init_source(Io& io,
                                           const RunConfig& config,
                                           const std::string& resume);

/// What inherit_model did.
struct InheritedModel {
  std::vector<ConfigChange> taken;   ///< from the default to the source's value
  std::vector<ConfigChange> differ;  ///< from the source's value to the config's, used here
};

/// Copies the model keys of the source into a config, each by its InitRule. Copies keys that the
/// config does not set; keeps keys named in train.init_override.
///
/// given  keys that the config sets, as read_config_text returns them
/// Throws Error naming the key where a key that changes the function contradicts the source, or
/// train.init_override names none.
InheritedModel inherit_model(RunConfig& config, const GivenKeys& given, const InitSource& source);

/// Throws Error if the tokens were made with another tokenizer than the source's, unless
/// train.init_override names `tokenizer`.
void check_init_tokenizer(const RunConfig& config,
                          const std::string& fingerprint,
                          const InitSource& source);

/// Logs the copied keys and those that differ.
void log_inherited(const InheritedModel& inherited, const InitSource& source);

/// Calls log_notes, find_init_source, inherit_model, log_inherited and check_used_keys, for commands
/// that only read the config of a run. If train.init_from is missing, warns that the model is that
/// of the config.
void inherit_model_if_there(Io& io, RunConfig& config, const GivenKeys& given);

}  // namespace dsmoe
