#include "cli/conversion.h"

#include <fmt/format.h>

#include <filesystem>
#include <functional>

#include "common/error.h"
#include "common/log.h"
#include "data/tokenizer_files.h"
#include "formats/json_limits.h"
#include "formats/tokenizer_json.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxTokenizerBytes = 256 << 20;
constexpr uint64_t kMaxConfigBytes = 1 << 20;

// Without its manifest it is a damaged one: its config says `model`, others say `model_type`.
bool is_checkpoint(Io& io, const std::string& path) {
  if (fs::exists(path + "/manifest.json") || fs::is_directory(path + "/checkpoints")) return true;
  const auto config = path + "/config.json";
  if (!fs::exists(config)) return false;
  const auto json = parse_json(read_file(io, config, kMaxConfigBytes), config, kMaxConfigBytes);
  return json.is_object() && json.contains("model") && !json.contains("model_type");
}

// n_rows: of the model's embedding.
std::unique_ptr<Tokenizer> find_hf_tokenizer(Io& io, const std::string& directory, int64_t n_rows) {
  const auto model = directory + "/tokenizer.model";
  const auto json = directory + "/tokenizer.json";
  // A tokenizer.json that is no byte-level BPE says the same as a SentencePiece model beside it.
  if (fs::exists(json) &&
      (!fs::exists(model) || is_byte_level_bpe(read_file(io, json, kMaxTokenizerBytes), json))) {
    return read_hf_tokenizer(io, json, n_rows);
  }
  if (fs::exists(model)) return read_hf_sentencepiece(io, model, n_rows);
  throw Error(fmt::format(
      "{}: expected tokenizer.json or tokenizer.model, got neither; name one with --tokenizer",
      directory));
}

std::unique_ptr<Tokenizer> find_llama2c_tokenizer(const std::string& path) {
  const auto beside = (fs::path(path).parent_path() / "tokenizer.bin").string();
  if (fs::exists(beside)) return make_tokenizer(beside, {});
  throw Error(fmt::format(
      "{}: expected tokenizer.bin beside it, got none; name a tokenizer with --tokenizer", path));
}

using ReadTokenizer = std::function<std::unique_ptr<Tokenizer>()>;

// A source's own tokenizer that cannot be read is no obstacle to naming another.
std::unique_ptr<Tokenizer> choose_tokenizer(const TokenizerChoice& choice,
                                            const ReadTokenizer& read_own) {
  if (choice.spec.empty()) return read_own();
  auto chosen = make_tokenizer(choice.spec, {});
  if (choice.may_differ) return chosen;
  std::unique_ptr<Tokenizer> own;
  try {
    own = read_own();
  } catch (const Error& error) {
    log_info(fmt::format("--tokenizer {} is not compared: {}", choice.spec, error.what()));
    return chosen;
  }
  if (own->fingerprint() == chosen->fingerprint()) return chosen;
  throw Error(fmt::format(
      "--tokenizer {}: expected the tokenizer that the source has ({}), got {}; its ids "
      "mean other texts to the model; --other-tokenizer if that is meant",
      choice.spec,
      own->fingerprint(),
      chosen->fingerprint()));
}

}  // namespace

OpenedSource open_source(Io& io, const std::string& path, const TokenizerChoice& choice) {
  OpenedSource source;
  ReadTokenizer read_own;
  if (!fs::exists(path)) throw Error(fmt::format("{}: expected a model, got nothing", path));
  if (!fs::is_directory(path)) {
    source.kind = "llama2c";
    source.model = open_llama2c(io, path);
    read_own = [&] { return find_llama2c_tokenizer(path); };
  } else if (is_checkpoint(io, path)) {
    source.kind = "checkpoint";
    const auto checkpoint = find_checkpoint(io, path);
    source.model = open_checkpoint(io, checkpoint);
    read_own = [&io, directory = checkpoint.directory] { return load_tokenizer(io, directory); };
  } else {
    source.kind = "hf-llama";
    source.model = open_hf_llama(io, path);
    read_own = [&] { return find_hf_tokenizer(io, path, source.model.config.vocab_size); };
  }
  source.tokenizer = choose_tokenizer(choice, read_own);
  if (source.tokenizer->vocab_size() > source.model.config.vocab_size) {
    throw Error(fmt::format("{}: the tokenizer has {} ids, the model {}",
                            path,
                            source.tokenizer->vocab_size(),
                            source.model.config.vocab_size));
  }
  return source;
}

}  // namespace dsmoe
