#include "data/training_data.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/error.h"
#include "common/io.h"
#include "data/dataset_record.h"
#include "data/megatron_source.h"
#include "data/token_dataset.h"
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
