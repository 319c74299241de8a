#pragma once

#include <cstdint>
#include <string>

#include "common/io.h"
#include "data/token_source.h"
#include "formats/megatron_index.h"

namespace dsmoe {

/// A Megatron pair `PREFIX.idx`, `PREFIX.bin` as a stream of tokens, read by pread. The document
/// starts stay in memory, 8 bytes each.
///
/// hash() covers the index, the size of the tokens and 1,024 evenly spaced blocks of them: the pair
/// has no stored hash, and a corpus is too large to be read at every start.
class MegatronSource final : public TokenSource {
 public:
  /// vocab_size  ids from it on are an Error when they are read
  /// Throws Error naming the file: missing, not an index, a `.bin` of another size.
  MegatronSource(Io& io, const std::string& prefix, int64_t vocab_size);
  ~MegatronSource() override;
  MegatronSource(const MegatronSource&) = delete;
  MegatronSource& operator=(const MegatronSource&) = delete;

  int64_t n_tokens() const override { return index_.n_tokens; }
  int64_t n_documents() const override {
    return static_cast<int64_t>(index_.document_starts.size());
  }
  const std::string& hash() const override { return hash_; }
  void copy(int64_t begin, std::span<int32_t> out) const override;
  std::vector<int64_t> document_starts(int64_t begin, int64_t end) const override;
  int64_t documents_before(int64_t position) const override;

  /// Returns whether both files exist. Throws Error naming the missing one if only one does.
  static bool exists(const std::string& prefix);

 private:
  uint64_t size_bytes() const;
  std::string hash_of_pair(std::string_view index_bytes) const;

  Io& io_;
  std::string path_;  // of the tokens
  int64_t vocab_size_;
  MegatronIndex index_;
  int fd_ = -1;
  std::string hash_;
};

}  // namespace dsmoe
