#pragma once

#include <optional>
#include <set>
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
  bool is_own = false;  ///< of the run itself, which resumes: the weights are not init_from's
};

/// The checkpoint that a start of this config takes its weights from, by its config and manifest
/// alone: the one to resume from if there is one, else train.init_from. Empty without
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
  std::vector<ConfigChange> differ;  ///< from the source's value to the config's, which counts
};

/// Makes the model of a config that of the source, key by key and by the key's InitRule: keys that
/// the config does not set are taken over; train.init_override names those that stay.
///
/// given  keys that the config sets, as read_config_text returns them
/// Throws Error naming the key where a key that changes the function contradicts the source, or
/// train.init_override names none.
InheritedModel inherit_model(RunConfig& config,
                             const std::set<std::string>& given,
                             const InitSource& source);

/// Throws Error if the tokens are not of the source's tokenizer, unless train.init_override says
/// that it is meant.
void check_init_tokenizer(const RunConfig& config,
                          const std::string& fingerprint,
                          const InitSource& source);

/// Logs what was taken over and what differs.
void log_inherited(const InheritedModel& inherited, const InitSource& source);

/// find_init_source, inherit_model and log_inherited: for commands that read the config of a run
/// only. Where train.init_from is not there, a warning says that the model is the config's own.
void inherit_model_if_there(Io& io, RunConfig& config, const std::set<std::string>& given);

}  // namespace dsmoe
