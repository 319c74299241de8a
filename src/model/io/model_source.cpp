#include "model/io/model_source.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "common/error.h"
#include "common/log.h"
#include "formats/llama2c.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

using Entries = std::map<std::string, TensorEntry>;

at::Tensor read_float32(const TensorSource& source, const TensorEntry& entry) {
  const auto dtype = dtype_from_name(entry.dtype);
  auto value = at::empty(entry.shape, dtype);
  source.read(entry, value.data_ptr());
  return value.to(at::kFloat).contiguous();
}

// Rows (2 i, 2 i + 1) of each head become rows (i, i + head_dim / 2).
at::Tensor neighbours_to_halves(const at::Tensor& rows, int64_t n_heads) {
  const int64_t half = rows.size(0) / n_heads / 2;
  return rows.view({n_heads, half, 2, -1}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

bool is_ignored(const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }

std::string list_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  const std::vector<std::string> shown(names.begin(),
                                       names.begin() + std::min(names.size(), kShown));
  const auto more = names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : "";
  return names.empty() ? "none" : fmt::format("{}{}", fmt::join(shown, ", "), more);
}

// A tied head that is stored in the files must equal the embedding.
void settle_head(const TensorSource& source,
                 Entries& entries,
                 const ModelConfig& config,
                 const std::string& source_name) {
  const auto head = entries.find(kHead);
  if (head == entries.end() || !config.tie_embeddings) return;
  const auto embedding = entries.find(kEmbedding);
  if (embedding == entries.end() || embedding->second.shape != head->second.shape ||
      !at::equal(read_float32(source, embedding->second), read_float32(source, head->second))) {
    throw Error(fmt::format(
        "{}: tie_word_embeddings is set, but '{}' is not '{}'", source_name, kHead, kEmbedding));
  }
  entries.erase(head);
}

void check_entry(const TensorEntry& entry,
                 const LlamaTensor& expected,
                 const std::string& source_name) {
  if (entry.shape != expected.shape) {
    throw Error(fmt::format("{}: '{}': expected shape [{}], got [{}]",
                            source_name,
                            entry.name,
                            fmt::join(expected.shape, ", "),
                            fmt::join(entry.shape, ", ")));
  }
  if (entry.dtype != "F32" && entry.dtype != "BF16" && entry.dtype != "F16") {
    throw Error(fmt::format(
        "{}: '{}': expected F32, BF16 or F16, got {}", source_name, entry.name, entry.dtype));
  }
}

// names: tensor names of the source. The error lists missing and unused names.
void check_names(const std::vector<std::string>& expected,
                 std::set<std::string> names,
                 const std::string& source_name) {
  std::vector<std::string> missing;
  for (const auto& name : expected) {
    if (names.erase(name) == 0) missing.push_back(name);
  }
  if (missing.empty() && names.empty()) return;
  const bool lacks_head = std::find(missing.begin(), missing.end(), kHead) != missing.end();
  throw Error(
      fmt::format("{}: expected exactly the tensors of the model; missing: {}; unused: {}{}",
                  source_name,
                  list_names(missing),
                  list_names({names.begin(), names.end()}),
                  lacks_head ? "; set tie_word_embeddings where the head is the embedding" : ""));
}

void check_names(const Entries& entries,
                 const std::vector<LlamaTensor>& expected,
                 const std::string& source_name) {
  std::vector<std::string> expected_names;
  for (const auto& tensor : expected) expected_names.push_back(tensor.hf_name);
  std::set<std::string> names;
  for (const auto& [name, entry] : entries) names.insert(name);
  check_names(expected_names, std::move(names), source_name);
}

}  // namespace

ModelSource open_llama(std::shared_ptr<const TensorSource> source,
                       ModelConfig config,
                       RotaryPairs pairs,
                       const std::string& source_name) {
  Entries entries;
  for (const auto& entry : source->tensors()) {
    if (!is_ignored(entry.name)) entries.emplace(entry.name, entry);
  }
  settle_head(*source, entries, config, source_name);
  const auto expected = llama_tensors(config);
  check_names(entries, expected, source_name);
  ModelSource result{.config = config, .tensors = {}};
  for (const auto& tensor : expected) {
    const auto& entry = entries.at(tensor.hf_name);
    check_entry(entry, tensor, source_name);
    const int64_t n_heads = pairs == RotaryPairs::kNeighbours ? tensor.n_rotary_heads : 0;
    result.tensors.push_back({tensor.name, tensor.shape, [source, entry, n_heads] {
                                auto value = read_float32(*source, entry);
                                return n_heads > 0 ? neighbours_to_halves(value, n_heads) : value;
                              }});
  }
  return result;
}

ModelSource open_hf_llama(Io& io, const std::string& directory) {
  const auto path = directory + "/config.json";
  const auto config = parse_llama_config(read_file(io, path, kMaxConfigBytes), path);
  if (!config.unknown_keys.empty()) {
    log_warning(fmt::format("{}: unknown keys that may change what the model computes: {}",
                            path,
                            fmt::join(config.unknown_keys, ", ")));
  }
  return open_llama(std::make_shared<SafetensorsSource>(open_sharded_safetensors(io, directory)),
                    config.model,
                    RotaryPairs::kHalves,
                    directory);
}

ModelSource open_llama2c(Io& io, const std::string& path) {
  auto file = std::make_shared<Llama2cFile>(io, path);
  const auto& header = file->header();
  ModelConfig config;
  config.vocab_size = header.vocab_size;
  config.d_model = header.d_model;
  config.n_layers = header.n_layers;
  config.max_seq_len = header.max_seq_len;
  config.norm_eps = 1e-5;
  config.rope_theta = file->rotary_theta().value_or(config.rope_theta);
  config.tie_embeddings = header.tied;
  config.attention.kind = AttentionKind::kDense;
  config.attention.head_dim = header.head_dim();
  config.attention.n_heads = header.n_heads;
  config.attention.n_kv_heads = header.n_kv_heads;
  config.ffn.kind = FfnKind::kDense;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.d_ffn = header.d_ffn;
  config.validate();
  return open_llama(std::move(file), config, RotaryPairs::kNeighbours, path);
}

ModelSource open_checkpoint(Io& io, const VerifiedCheckpoint& checkpoint) {
  std::vector<std::string> paths;
  for (const auto& record : checkpoint.manifest.files) {
    if (record.name.starts_with("model-") && record.name.ends_with(".safetensors")) {
      paths.push_back(checkpoint.directory + "/" + record.name);
    }
  }
  const auto source = std::make_shared<SafetensorsSource>(io, paths);
  ModelSource result{.config = read_model_config(io, checkpoint.directory), .tensors = {}};
  // Its tensors are never read or written, and so use no memory.
  const Transformer shapes(result.config);
  match_tensors(io, checkpoint, "model-", named_tensors(*shapes));
  for (const auto& entry : source->tensors()) {
    result.tensors.push_back(
        {entry.name, entry.shape, [source, entry] { return read_float32(*source, entry); }});
  }
  return result;
}

Transformer instantiate(const ModelSource& source) {
  const at::NoGradGuard no_grad;
  Transformer model(source.config);
  const auto parameters = model->named_parameters();
  std::set<std::string> names;
  for (const auto& tensor : source.tensors) names.insert(tensor.name);
  check_names(parameters.keys(), std::move(names), "model");
  for (const auto& tensor : source.tensors) {
    const auto* target = parameters.find(tensor.name);
    if (target == nullptr || !target->sizes().equals(tensor.shape)) {
      throw Error(fmt::format("model: '{}' of shape [{}] is not a tensor of this model",
                              tensor.name,
                              fmt::join(tensor.shape, ", ")));
    }
    target->copy_(tensor.load());
  }
  model->eval();
  return model;
}

}  // namespace dsmoe
