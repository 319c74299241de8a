#include "train/resume_check.h"

#include <fmt/format.h>

#include "common/error.h"
#include "common/log.h"

namespace dsmoe {

std::vector<ConfigChange> check_config_change(const RunConfig& saved, const RunConfig& now) {
  RunConfig before = saved;
  RunConfig after = now;
  std::vector<ConfigChange> applied;
  const auto changes = compare_configs([&](ConfigVisitor& visitor) { describe(visitor, before); },
                                       [&](ConfigVisitor& visitor) { describe(visitor, after); });
  for (const auto& change : changes) {
    if (change.rule == ResumeRule::kFixed) {
      throw Error(fmt::format(
          "{}: expected {} as in the checkpoint, got {}; start another run_dir to change it",
          change.key,
          change.old_value,
          change.new_value));
    }
    if (change.rule == ResumeRule::kApplied) {
      log_warning(fmt::format(
          "resume: {} was {}, is now {}", change.key, change.old_value, change.new_value));
      applied.push_back(change);
    }
  }
  return applied;
}

void check_origin(const CheckpointManifest& manifest, const RunOrigin& origin) {
  if (manifest.dataset_hash != origin.dataset_hash) {
    throw Error(fmt::format(
        "data.train: expected the tokens that step {} was trained on ({}), got other tokens ({})",
        manifest.step,
        manifest.dataset_hash,
        origin.dataset_hash));
  }
  if (manifest.tokenizer_fingerprint != origin.tokenizer_fingerprint) {
    throw Error(fmt::format("data.tokenizer: expected the tokenizer of step {} ({}), got {}",
                            manifest.step,
                            manifest.tokenizer_fingerprint,
                            origin.tokenizer_fingerprint));
  }
  const auto compare = [](const char* what, const std::string& was, const std::string& is) {
    if (was != is) {
      log_warning(fmt::format("resume: {} was {}, is now {}; bits may differ", what, was, is));
    }
  };
  compare("dsmoe", manifest.code_version, origin.code_version);
  compare("torch", manifest.torch_version, origin.torch_version);
}

}  // namespace dsmoe
