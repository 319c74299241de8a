#include <fmt/format.h>

#include <map>
#include <numeric>
#include <vector>

#include "cli/command_support.h"
#include "cli/options/inspect.h"
#include "cli/run_functions.h"
#include "common/config_reader.h"
#include "common/error.h"
#include "common/standard_output.h"
#include "data/tokenizer_files.h"

namespace dsmoe {
namespace {

// The part of the model that a tensor belongs to, from its name.
std::string group_of(const std::string& name) {
  const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (has("embedding") || name.rfind("head.", 0) == 0) return "embedding";
  if (has("router")) return "routers";
  if (has("norm")) return "norms";
  return has("moa") || has("attention") ? "attention" : "ffn";
}

int64_t count_of(const TensorEntry& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

int run_inspect(const InspectCommand& options) {
  auto& io = posix_io();
  const auto checkpoint = find_checkpoint(io, options.checkpoint);
  auto config = read_model_config(io, checkpoint.directory);
  const auto tokenizer = load_tokenizer(io, checkpoint.directory);
  const auto describe_config = [&](ConfigVisitor& visitor) { describe(visitor, config); };
  const auto& manifest = checkpoint.manifest;

  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  std::map<std::string, int64_t> groups;
  int64_t parameters = 0;
  for (const auto& file : manifest.files) {
    if (file.name.rfind("model-", 0) != 0) continue;
    for (const auto& tensor : file.tensors) {
      tensors.push_back({{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
      groups[group_of(tensor.name)] += count_of(tensor);
      parameters += count_of(tensor);
    }
  }
  const nlohmann::ordered_json json = {
      {"checkpoint", checkpoint.directory},
      {"step", manifest.step},
      {"valid", true},  // find_checkpoint throws for a checkpoint that is not
      {"parameters", parameters},
      {"parameters_by_group", groups},
      {"tensors", tensors},
      {"tokenizer",
       {{"fingerprint", tokenizer->fingerprint()},
        {"vocab_size", tokenizer->vocab_size()},
        {"special_tokens", special_tokens_to_json(tokenizer->special_tokens())}}},
      {"run_id", manifest.run_id},
      {"code_version", manifest.code_version},
      {"torch_version", manifest.torch_version},
      {"dataset_hash", manifest.dataset_hash},
      {"config", nlohmann::ordered_json::parse(config_to_json(describe_config))["model"]}};
  if (options.json) {
    print_json(json);
    return 0;
  }
  print_out("{}: step {}, every checksum verified\n", checkpoint.directory, manifest.step);
  print_out("written by dsmoe {} with LibTorch {}, run {}\n",
            manifest.code_version,
            manifest.torch_version,
            manifest.run_id);
  print_out("tokenizer {}, {} ids\n", tokenizer->fingerprint(), tokenizer->vocab_size());
  const auto& special = tokenizer->special_tokens();
  print_out("BOS {}, {} to a text; a text ends at {}\n",
            special.bos ? fmt::format("{}", *special.bos) : "none",
            special.adds_bos ? "added" : "not added",
            special.eos.empty() ? "no token" : fmt::format("{}", fmt::join(special.eos, ", ")));
  print_out("{} parameters in {} tensors\n", parameters, tensors.size());
  for (const auto& [group, count] : groups) print_out("  {:<10} {:>12}\n", group, count);
  for (const auto& tensor : tensors) {
    if (!options.tensors) break;
    print_out("  {:<48} {:<4} [{}]\n",
              tensor["name"].get<std::string>(),
              tensor["dtype"].get<std::string>(),
              fmt::join(tensor["shape"].get<std::vector<int64_t>>(), ", "));
  }
  print_out("{}", config_to_yaml(describe_config));
  return 0;
}

}  // namespace dsmoe
