#include "train/config_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/io.h"
#include "common/log.h"
#include "train/config_aliases.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

constexpr const char* kAttentionKind = "model.attention.kind";
constexpr const char* kHeads = "model.attention.n_heads";
constexpr const char* kKvHeads = "model.attention.n_kv_heads";
constexpr const char* kHeadDim = "model.attention.head_dim";
constexpr const char* kFfnKind = "model.ffn.kind";
constexpr const char* kFfnWidth = "model.ffn.d_ffn";
constexpr const char* kExpertWidth = "model.moe.d_expert";

bool has_prefix(const GivenKeys& given, const std::string& prefix) {
  const auto names = given.names();
  const auto first = names.lower_bound(prefix);
  return first != names.end() && first->starts_with(prefix);
}

bool is_alias(const GivenKeys& given, const std::string& key) {
  const auto* place = given.find(key);
  return place != nullptr && place->is_alias;
}

// A key that is one of several ways to say the same, and whether its value says it.
struct Way {
  const char* key;
  bool is_used;
};

// Among ways, those of the command line replace those of the file; two of one place contradict.
class Ways {
 public:
  Ways(const GivenKeys& given, std::vector<std::string>& faults) : given_(given), faults_(faults) {}

  /// Returns the one way that counts; empty if none is given.
  std::string choose(const std::vector<Way>& ways) const {
    for (const bool is_override : {true, false}) {
      std::vector<const Way*> found;
      for (const auto& way : ways) {
        const auto* place = given_.find(way.key);
        if (place != nullptr && place->is_override == is_override && way.is_used) {
          found.push_back(&way);
        }
      }
      if (found.size() > 1) {
        faults_.push_back(fmt::format("{}: contradicts {} ({}); keep one of them",
                                      given_.find(found[1]->key)->text,
                                      found[0]->key,
                                      given_.find(found[0]->key)->text));
      }
      if (!found.empty()) return found[0]->key;
    }
    return "";
  }

 private:
  const GivenKeys& given_;
  std::vector<std::string>& faults_;
};

// Clears the ways that do not count.
void settle_units(TrainConfig& train, const GivenKeys& given, std::vector<std::string>& faults) {
  const Ways ways(given, faults);
  const auto length = ways.choose({{"train.steps", true},
                                   {"train.tokens", train.tokens > 0},
                                   {"train.epochs", train.epochs > 0}});
  if (length != "train.tokens") train.tokens = 0;
  if (length != "train.epochs") train.epochs = 0;
  const auto batch = ways.choose({{"train.accumulation", true},
                                  {"train.batch_tokens", train.batch_tokens > 0},
                                  {"train.batch_sequences", train.batch_sequences > 0}});
  if (batch != "train.batch_tokens") train.batch_tokens = 0;
  if (batch != "train.batch_sequences") train.batch_sequences = 0;
  auto& schedule = train.schedule;
  const auto warmup = ways.choose(
      {{"train.schedule.warmup_steps", true}, {"train.schedule.warmup", !schedule.warmup.empty()}});
  if (warmup != "train.schedule.warmup") schedule.warmup.clear();
}

void infer_attention(ModelConfig& model, GivenKeys& given) {
  auto& attention = model.attention;
  const bool has_dense_keys =
      given.contains(kHeads) || given.contains(kKvHeads) || attention.qk_norm;
  if (!given.contains(kAttentionKind) && has_dense_keys && !has_prefix(given, "model.moa.")) {
    attention.kind = AttentionKind::kDense;
    given.notes.push_back(
        "model.attention.kind is left out: dense, the kind with n_heads and n_kv_heads; moa has "
        "attention experts");
  }
  if (attention.kind != AttentionKind::kDense || !is_alias(given, kHeads)) return;
  if (!given.contains(kKvHeads)) {
    attention.n_kv_heads = attention.n_heads;
    given.notes.push_back(
        fmt::format("{} is left out: {}, as many as heads", kKvHeads, attention.n_kv_heads));
  }
  const bool divides = model.d_model % attention.n_heads == 0;
  if (!given.contains(kHeadDim) && divides && (model.d_model / attention.n_heads) % 2 == 0) {
    attention.head_dim = model.d_model / attention.n_heads;
    given.notes.push_back(
        fmt::format("{} is left out: {}, d_model / n_heads", kHeadDim, attention.head_dim));
  }
}

void infer_ffn(ModelConfig& model, GivenKeys& given) {
  auto& ffn = model.ffn;
  const bool has_experts = has_prefix(given, "model.moe.");
  const bool has_kind = given.contains(kFfnKind);
  // Mixtral and OLMoE write the width of an expert so.
  if (is_alias(given, kFfnWidth) && !given.contains(kExpertWidth) &&
      (has_kind ? ffn.kind == FfnKind::kMoe : has_experts)) {
    ffn.d_expert = ffn.d_ffn;
    ffn.d_ffn = FfnConfig{}.d_ffn;
    given.add(kExpertWidth, *given.find(kFfnWidth));
    given.erase(kFfnWidth);
    given.notes.push_back(
        fmt::format("{} = {}: with experts, the width of one", kExpertWidth, ffn.d_expert));
  }
  if (!has_kind && given.contains(kFfnWidth) && !has_experts) {
    ffn.kind = FfnKind::kDense;
    given.notes.push_back(
        "model.ffn.kind is left out: dense, the kind with d_ffn; moe has experts of d_expert");
  }
}

// The program writes the keys of every kind; a person does not.
bool is_written_by_program(const GivenKeys& given) {
  static constexpr const char* kKeysOfEveryKind[] = {
      kHeads, "model.moa.n_experts", kFfnWidth, "model.moe.n_experts", "model.partition.gates"};
  return std::all_of(std::begin(kKeysOfEveryKind), std::end(kKeysOfEveryKind), [&](auto* key) {
    return given.contains(key);
  });
}

}  // namespace

GivenKeys read_run_config_text(const std::string& text,
                               const std::string& source_name,
                               const std::vector<std::string>& overrides,
                               RunConfig& config) {
  ReadOptions options;
  options.aliases = run_config_aliases();
  options.section_aliases = run_config_section_aliases();
  auto given = read_config_text(
      text, source_name, overrides, [&](ConfigVisitor& v) { describe(v, config); }, options);
  std::vector<std::string> faults;
  settle_units(config.train, given, faults);
  if (!faults.empty()) throw ConfigError(source_name, std::move(faults));
  if (config.train.init_from.empty()) {
    infer_attention(config.model, given);
    infer_ffn(config.model, given);
  }
  return given;
}

GivenKeys read_run_config(const std::string& path,
                          const std::vector<std::string>& overrides,
                          RunConfig& config) {
  return read_run_config_text(read_file(posix_io(), path, kMaxBytes), path, overrides, config);
}

void check_used_keys(RunConfig config, const GivenKeys& given) {
  auto checked = given;
  if (is_written_by_program(given)) {
    for (const auto& key : given.names()) {
      if (!given.find(key)->is_override) checked.erase(key);
    }
  }
  auto faults = unused_keys([&](ConfigVisitor& v) { describe(v, config); }, checked);
  if (!faults.empty()) throw ConfigError("config", std::move(faults));
}

void log_notes(const GivenKeys& given) {
  for (const auto& note : given.notes) log_info(note);
}

}  // namespace dsmoe
