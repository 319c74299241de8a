#include "train/init_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "common/error.h"
#include "common/log.h"
#include "model/io/checkpoint_reader.h"
#include "train/config_file.h"

namespace dsmoe {
namespace {

constexpr const char* kTokenizer = "tokenizer";
constexpr const char* kVocabSize = "model.vocab_size";

Describe describer(ModelConfig& model) {
  return [&model](ConfigVisitor& visitor) { describe(visitor, model); };
}

// Reads the config and the manifest only; the files are verified when the weights are read.
InitSource read_source(Io& io, const std::string& directory, bool is_own) {
  return {.directory = directory,
          .model = read_model_config(io, directory),
          .tokenizer_fingerprint = read_manifest(io, directory).tokenizer_fingerprint,
          .is_own = is_own};
}

// The newest readable checkpoint of a run (all have the same model), or the checkpoint itself.
InitSource read_source_or_run(Io& io, const std::string& path, bool is_own) {
  std::string refusal;
  for (const auto& directory : list_checkpoints(path)) {
    try {
      return read_source(io, directory, is_own);
    } catch (const Error& error) {
      if (refusal.empty()) refusal = error.what();
    }
  }
  if (!refusal.empty()) throw Error(refusal);
  return read_source(io, path, is_own);
}

void check_override_keys(const std::vector<std::string>& overrides, ModelConfig& model) {
  const auto keys = config_keys(describer(model));
  for (const auto& key : overrides) {
    if (key == kTokenizer || std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    throw Error(fmt::format(
        "train.init_override: expected keys of the model, as model.rope_theta, or {}, got '{}'",
        kTokenizer,
        key));
  }
}

bool is_meant(const RunConfig& config, const std::string& key) {
  const auto& keys = config.train.init_override;
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

// Unset keys get the source's values.
std::vector<ConfigChange> take_over(RunConfig& config, GivenKeys given, const InitSource& source) {
  // Zero means that the value is derived elsewhere.
  if (config.model.vocab_size == 0) given.erase(kVocabSize);
  auto model = source.model;
  std::vector<ConfigChange> taken;
  std::vector<std::string> values;
  for (auto& change : compare_configs(describer(config.model), describer(model))) {
    const bool is_kept = !source.is_own && is_meant(config, change.key);
    if (change.init == InitRule::kFree || given.contains(change.key) || is_kept) continue;
    values.push_back(change.key + "=" + change.new_value);
    taken.push_back(std::move(change));
  }
  read_config_text("{}", source.directory, values, describer(config.model));
  return taken;
}

}  // namespace

std::optional<InitSource> find_init_source(Io& io,
                                           const RunConfig& config,
                                           const std::string& resume) {
  if (config.train.init_from.empty()) return std::nullopt;
  if (resume == "auto") {
    if (!list_checkpoints(config.run_dir).empty()) {
      return read_source_or_run(io, config.run_dir, /*is_own=*/true);
    }
  } else if (resume != "none") {
    return read_source_or_run(io, resume, /*is_own=*/true);
  }
  const auto& path = config.train.init_from;
  if (!std::filesystem::is_directory(path)) {
    throw Error(fmt::format("train.init_from: {}: expected a checkpoint or run directory", path));
  }
  return read_source_or_run(io, path, /*is_own=*/false);
}

InheritedModel inherit_model(RunConfig& config, const GivenKeys& given, const InitSource& source) {
  check_override_keys(config.train.init_override, config.model);
  InheritedModel result{.taken = take_over(config, given, source), .differ = {}};
  // A run that resumes is compared by the rules of resume_check.h.
  if (source.is_own) return result;
  auto model = source.model;
  for (auto& change : compare_configs(describer(model), describer(config.model))) {
    if (change.init == InitRule::kFree) continue;
    if (change.init == InitRule::kCompared && !is_meant(config, change.key)) {
      throw Error(fmt::format(
          "{}: expected {} as in train.init_from ({}), got {}; leave the key out to take that "
          "value over, or list it in train.init_override if the difference is meant",
          change.key,
          change.old_value,
          source.directory,
          change.new_value));
    }
    result.differ.push_back(std::move(change));
  }
  return result;
}

void check_init_tokenizer(const RunConfig& config,
                          const std::string& fingerprint,
                          const InitSource& source) {
  if (source.is_own || fingerprint == source.tokenizer_fingerprint ||
      is_meant(config, kTokenizer)) {
    return;
  }
  throw Error(fmt::format(
      "data.train: expected tokens of the tokenizer of train.init_from ({}), {}, got {}; tokenize "
      "with --tokenizer of that checkpoint, or list {} in train.init_override if it is meant",
      source.directory,
      source.tokenizer_fingerprint,
      fingerprint,
      kTokenizer));
}

void log_inherited(const InheritedModel& inherited, const InitSource& source) {
  std::vector<std::string> taken;
  for (const auto& change : inherited.taken) {
    taken.push_back(fmt::format("{} = {}", change.key, change.new_value));
  }
  // A warning: these values differ from the defaults that --list-keys prints.
  if (!taken.empty()) {
    log_warning(fmt::format("taken over from {}: {}", source.directory, fmt::join(taken, ", ")));
  }
  for (const auto& change : inherited.differ) {
    const auto line = fmt::format("{} is {}, in train.init_from ({}) it is {}",
                                  change.key,
                                  change.new_value,
                                  source.directory,
                                  change.old_value);
    change.init == InitRule::kCompared ? log_warning(line) : log_info(line);
  }
}

void inherit_model_if_there(Io& io, RunConfig& config, const GivenKeys& given) {
  log_notes(given);
  const auto& path = config.train.init_from;
  if (!path.empty() && std::filesystem::is_directory(path)) {
    const auto source = find_init_source(io, config, "none");
    log_inherited(inherit_model(config, given, *source), *source);
  } else if (!path.empty()) {
    log_warning(fmt::format(
        "train.init_from: {} does not exist; using the model of this config alone", path));
    return;
  }
  check_used_keys(config, given);
}

}  // namespace dsmoe
