#include "report/run_record.h"

#include <fmt/format.h>

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "common/error.h"
#include "formats/checkpoint_manifest.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 32;
constexpr size_t kMaxLineBytes = size_t{1} << 26;
constexpr size_t kMaxNameBytes = 256;

// The resolved config is written by this program: one key a line, top-level keys not indented.
std::string top_level_value(const std::string& yaml, const std::string& key) {
  std::istringstream lines(yaml);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(key + ": ", 0) == 0) return line.substr(key.size() + 2);
  }
  return "";
}

std::vector<std::pair<std::string, std::string>> read_environment(Io& io,
                                                                  const std::string& run_directory,
                                                                  const std::string& config) {
  const auto hint = run_directory + "/latest";
  if (!std::filesystem::exists(hint)) return {};
  auto name = read_file(io, hint, kMaxNameBytes);
  if (!name.empty() && name.back() == '\n') name.pop_back();
  const auto manifest = read_manifest(io, run_directory + "/checkpoints/" + name);
  return {{"run", manifest.run_id},
          {"newest checkpoint, step", std::to_string(manifest.step)},
          {"dsmoe", manifest.code_version},
          {"torch", manifest.torch_version},
          {"ranks", std::to_string(manifest.world_size)},
          {"threads of a rank", top_level_value(config, "threads")},
          {"hash of the config", manifest.config_hash},
          {"hash of the training tokens", manifest.dataset_hash},
          {"tokenizer", manifest.tokenizer_fingerprint}};
}

// `model.attention.kind` and its value; a list is one value.
void flatten(const YAML::Node& node,
             const std::string& key,
             std::map<std::string, std::string>& values) {
  if (node.IsMap()) {
    for (const auto& item : node) {
      const auto name = item.first.as<std::string>();
      flatten(item.second, key.empty() ? name : key + "." + name, values);
    }
    return;
  }
  YAML::Emitter text;
  text << YAML::Flow << node;
  values[key] = text.c_str();
}

std::map<std::string, std::string> values_of(const std::string& yaml) {
  std::map<std::string, std::string> values;
  try {
    flatten(YAML::Load(yaml), "", values);
  } catch (const YAML::Exception&) {
    values.clear();  // not written by this program: shown as it is, not compared
  }
  return values;
}

}  // namespace

std::vector<std::pair<std::string, std::vector<std::string>>> config_differences(
    const std::vector<RunRecord>& runs) {
  std::map<std::string, std::vector<std::string>> by_key;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const auto& [key, value] : values_of(runs[i].config)) {
      auto& values = by_key[key];
      values.resize(runs.size());
      values[i] = value;
    }
  }
  std::vector<std::pair<std::string, std::vector<std::string>>> differences;
  for (const auto& [key, values] : by_key) {
    const bool is_same = std::all_of(
        values.begin(), values.end(), [&](const auto& value) { return value == values[0]; });
    if (!is_same && key != "run_dir") differences.emplace_back(key, values);
  }
  return differences;
}

RunRecord read_run(Io& io, const std::string& run_directory) {
  RunRecord run;
  run.name = std::filesystem::path(run_directory).lexically_normal().filename().string();
  if (run.name.empty()) {
    run.name = std::filesystem::path(run_directory).lexically_normal().parent_path().filename();
  }
  const auto path = run_directory + "/metrics.jsonl";
  std::istringstream lines(read_file(io, path, kMaxFileBytes));
  int64_t line_number = 0;
  for (std::string line; std::getline(lines, line) && !lines.eof();) {
    const auto where = fmt::format("{}:{}", path, ++line_number);
    auto json = parse_json(line, where, kMaxLineBytes);
    auto& list = json.contains("event")             ? run.events
                 : json.contains("validation_loss") ? run.validations
                                                    : run.steps;
    list.push_back(std::move(json));
  }
  run.config = read_file(io, run_directory + "/config.yaml", kMaxLineBytes);
  run.environment = read_environment(io, run_directory, run.config);
  if (const auto summary = run_directory + "/run.json"; std::filesystem::exists(summary)) {
    run.summary = parse_json(read_file(io, summary, kMaxLineBytes), summary, kMaxLineBytes);
  }
  if (run.steps.empty()) throw Error(path + ": expected at least one logged step, got none");
  return run;
}

}  // namespace dsmoe
