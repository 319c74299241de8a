#include "cli/conversion.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "common/error.h"
#include "data/tokenizer_files.h"
#include "formats/tokenizer_json.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxTokenizerBytes = 256 << 20;

bool is_checkpoint(const std::string& path) {
  return fs::exists(path + "/manifest.json") || fs::is_directory(path + "/checkpoints");
}

// n_rows: of the model's embedding.
std::unique_ptr<Tokenizer> find_hf_tokenizer(Io& io, const std::string& directory, int64_t n_rows) {
  const auto model = directory + "/tokenizer.model";
  const auto json = directory + "/tokenizer.json";
  // A tokenizer.json that is no byte-level BPE says the same as a SentencePiece model beside it.
  if (fs::exists(json) &&
      (!fs::exists(model) || is_byte_level_bpe(read_file(io, json, kMaxTokenizerBytes), json))) {
    return read_hf_tokenizer(io, json);
  }
  if (fs::exists(model)) return read_hf_sentencepiece(io, model, n_rows);
  throw Error(fmt::format(
      "{}: expected tokenizer.json or tokenizer.model, got neither; name one with --tokenizer",
      directory));
}

}  // namespace

OpenedSource open_source(Io& io, const std::string& path, const std::string& tokenizer) {
  OpenedSource source;
  if (!tokenizer.empty()) source.tokenizer = make_tokenizer(tokenizer, {});
  if (!fs::exists(path)) throw Error(fmt::format("{}: expected a model, got nothing", path));
  if (!fs::is_directory(path)) {
    source.kind = "llama2c";
    source.model = open_llama2c(io, path);
    const auto beside = (fs::path(path).parent_path() / "tokenizer.bin").string();
    if (!source.tokenizer && fs::exists(beside)) source.tokenizer = make_tokenizer(beside, {});
    if (!source.tokenizer) {
      throw Error(fmt::format(
          "{}: expected tokenizer.bin beside it, got none; name a tokenizer with --tokenizer",
          path));
    }
  } else if (is_checkpoint(path)) {
    source.kind = "checkpoint";
    const auto checkpoint = find_checkpoint(io, path);
    source.model = open_checkpoint(io, checkpoint);
    if (!source.tokenizer) source.tokenizer = load_tokenizer(io, checkpoint.directory);
  } else {
    source.kind = "hf-llama";
    source.model = open_hf_llama(io, path);
    if (!source.tokenizer) {
      source.tokenizer = find_hf_tokenizer(io, path, source.model.config.vocab_size);
    }
  }
  if (source.tokenizer->vocab_size() > source.model.config.vocab_size) {
    throw Error(fmt::format("{}: the tokenizer has {} ids, the model {}",
                            path,
                            source.tokenizer->vocab_size(),
                            source.model.config.vocab_size));
  }
  return source;
}

at::Tensor comparison_tokens(const ModelConfig& config) {
  const int64_t n_tokens = std::min<int64_t>(config.max_seq_len, 16);
  return at::randint(config.vocab_size,
                     {1, n_tokens},
                     at::detail::createCPUGenerator(17),
                     at::TensorOptions(at::kLong));
}

}  // namespace dsmoe
