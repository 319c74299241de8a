#include "data/training_data.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/error.h"
#include "common/io.h"
#include "data/dataset_record.h"
#include "data/megatron_source.h"
#include "data/token_dataset.h"
#include "data/tokenize.h"
#include "data/tokenizer_files.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

std::shared_ptr<const Tokenizer> read_tokenizer(const std::string& spec) {
  if (std::filesystem::is_directory(spec)) return load_tokenizer(posix_io(), spec);
  if (spec == "bytes" || spec.ends_with(".model")) return make_tokenizer(spec, {});
  throw Error(fmt::format(
      "data.tokenizer: expected bytes, a .model file or a directory with tokenizer files, got '{}'",
      spec));
}

std::string in_shell(const std::string& path) {
  const bool is_plain =
      path.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/+") ==
      std::string::npos;
  if (is_plain) return path;
  std::string quoted = "'";
  for (const char c : path) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// A text file, or the output of tokenize --validation, where a data set is expected.
void check_is_dataset(const std::string& path) {
  namespace fs = std::filesystem;
  const auto has_dataset = [](const std::string& directory) {
    return fs::exists(fs::path(directory) / DatasetRecord::kFileName);
  };
  if (fs::is_regular_file(path)) {
    const auto out = (fs::path(path).parent_path() / fs::path(path).stem()).string() + "-shards";
    // Too little text gives no vocabulary of thousands.
    const bool is_small = fs::file_size(path) < (1 << 20);
    throw Error(
        fmt::format("data.train: '{}' is a file, expected a directory of token shards; run 'dsmoe "
                    "tokenize --input {} --tokenizer {} --validation 5% --out {}', then set "
                    "data.train: {} and data.validation: {}",
                    path,
                    in_shell(path),
                    is_small ? "bytes" : "train:bpe:4096",
                    in_shell(out),
                    train_part(out),
                    validation_part(out)));
  }
  if (!has_dataset(path) && has_dataset(train_part(path))) {
    throw Error(
        fmt::format("data.train: '{}' holds two data sets; set data.train: {} and "
                    "data.validation: {}",
                    path,
                    train_part(path),
                    validation_part(path)));
  }
}

void check_same(const Tokenizer& expected, const Tokenizer& tokenizer, const std::string& path) {
  if (expected.fingerprint() == tokenizer.fingerprint()) return;
  throw Error(fmt::format("data.train: '{}': expected tokens of tokenizer {}, got {}",
                          path,
                          expected.fingerprint(),
                          tokenizer.fingerprint()));
}

}  // namespace

TrainingData::TrainingData(const std::vector<std::string>& paths,
                           const std::vector<double>& weights,
                           const std::string& tokenizer_spec) {
  if (!tokenizer_spec.empty()) tokenizer_ = read_tokenizer(tokenizer_spec);
  std::vector<std::shared_ptr<const TokenSource>> opened(paths.size());
  for (size_t i = 0; i < paths.size(); ++i) {
    if (MegatronSource::exists(paths[i])) continue;
    check_is_dataset(paths[i]);
    auto dataset = std::make_shared<const TokenDataset>(paths[i]);
    // The tokenizer lives as long as its data set.
    if (!tokenizer_) tokenizer_ = {dataset, &dataset->tokenizer()};
    check_same(*tokenizer_, dataset->tokenizer(), paths[i]);
    opened[i] = std::move(dataset);
  }
  if (!tokenizer_) {
    throw Error("data.tokenizer: expected the tokenizer of the Megatron pairs, got none");
  }
  std::string hashes;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!opened[i]) {
      opened[i] =
          std::make_shared<const MegatronSource>(posix_io(), paths[i], tokenizer_->vocab_size());
    }
    hashes += opened[i]->hash() + "\n";
    const double weight = weights.empty() ? 1.0 : weights.at(i);
    if (!(weight > 0)) {
      throw Error(
          fmt::format("data.weights: expected weights above 0, got {} for '{}'; leave the "
                      "corpus out",
                      weight,
                      paths[i]));
    }
    sources_.push_back({opened[i], weight});
  }
  hash_ = sources_.size() == 1 ? sources_[0].source->hash() : hash128(hashes);
}

}  // namespace dsmoe
