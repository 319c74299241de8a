#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/token_source.h"
#include "data/tokenizer.h"

namespace dsmoe {

/// The corpora of a run, opened and checked against one tokenizer.
class TrainingData {
 public:
  /// paths           directories of token shards, or Megatron pairs by their path without the
  ///                 endings
  /// weights         one per path; empty: equal
  /// tokenizer_spec  of Megatron pairs: `bytes`, a `.model` file, a directory with tokenizer files;
  ///                 empty: that of the shards
  /// Throws Error: nothing at a path, tokenizers that differ, Megatron pairs without a tokenizer, a
  /// weight of 0.
  TrainingData(const std::vector<std::string>& paths,
               const std::vector<double>& weights,
               const std::string& tokenizer_spec);

  const std::vector<WeightedSource>& sources() const { return sources_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// Changes with the tokens or the order of the corpora.
  const std::string& hash() const { return hash_; }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<WeightedSource> sources_;
  std::string hash_;
};

}  // namespace dsmoe
