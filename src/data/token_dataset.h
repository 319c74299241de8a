#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_shard.h"
#include "data/token_source.h"
#include "data/tokenizer.h"

namespace dsmoe {

/// The shards of one `dsmoe tokenize` run as one stream of tokens. The directory holds
/// `dataset.json` (counts, tokenizer fingerprint, shard names and hashes), the tokenizer's files
/// and `shard-00000.bin` and so on.
///
/// The stream is, per document: BOS where the tokenizer adds one, the ids of the text, and EOS
/// where the tokenizer has one, unless that is the BOS it adds. A document starts at its BOS, or at
/// the first id of its text.
class TokenDataset final : public TokenSource {
 public:
  /// Opens and checks names, headers and hashes in `dataset.json` against the shards' headers;
  /// verify() reads the payloads too. Throws Error naming the file.
  explicit TokenDataset(const std::string& directory);

  int64_t n_tokens() const override { return n_tokens_; }
  int64_t n_documents() const override { return n_documents_; }
  int64_t n_bytes() const { return n_bytes_; }  ///< of text, before tokenization
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  /// Changes with any token, the order of the shards or the tokenizer.
  const std::string& hash() const override { return hash_; }

  void copy(int64_t begin, std::span<int32_t> out) const override;
  std::vector<int64_t> document_starts(int64_t begin, int64_t end) const override;
  int64_t documents_before(int64_t position) const override;
  void verify() const;

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<TokenShard> shards_;
  std::vector<int64_t> shard_begin_;  // stream position of each shard's first token
  int64_t n_tokens_ = 0;
  int64_t n_documents_ = 0;
  int64_t n_bytes_ = 0;
  std::string hash_;
};

}  // namespace dsmoe
