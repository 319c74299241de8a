#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer.h"
#include "data/word_cache.h"
#include "formats/tokenizer_json.h"

namespace dsmoe {

/// Byte-level BPE of Hugging Face's `tokenizer.json`: cuts out added tokens first, normalizes the
/// rest and cuts it into pieces (PreTokenizer), then merges the bytes of each piece in order of
/// priority, in O(n log n) time. Caches the ids of short pieces. scripts/compare_tokenizers.py
/// compares the ids with those of the library over all code points.
class HfBpeTokenizer final : public Tokenizer {
 public:
  /// From the bytes of a `tokenizer.json`. bos, eos: ids, used if the file names none; a BOS is
  /// added to every text. Throws Error naming source_name.
  HfBpeTokenizer(std::string json,
                 const std::string& source_name,
                 std::optional<int32_t> bos,
                 std::optional<int32_t> eos);
  /// The same with all special tokens; `special.added` replaces and extends those of the file.
  HfBpeTokenizer(std::string json, const std::string& source_name, SpecialTokens special);
  ~HfBpeTokenizer() override;

  /// Throws Error if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(file_.token_bytes.size()); }
  bool has_token(int64_t id) const override;
  const SpecialTokens& special_tokens() const override { return special_; }
  std::string fingerprint() const override { return fingerprint_; }
  size_t divide(std::string_view text) const override;
  std::vector<int32_t> encode_rest(std::string_view text) const override;

  const std::string& json() const { return json_; }
  /// Returns the file, with `token_bytes` of the added tokens that it lacks.
  const BpeTokenizerFile& file() const { return file_; }
  /// Returns the special tokens without the added tokens that the file already describes.
  SpecialTokens beyond_file() const;

 private:
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  void take_added(const std::string& source_name);
  std::vector<int32_t> encode_parts(std::string_view text, bool is_rest) const;
  void encode_plain(std::string_view text, bool is_rest, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge(std::string_view piece, std::vector<int32_t>& ids) const;
  size_t place_in(std::string_view text) const;
  const Merge* find_merge(int32_t left, int32_t right) const;

  std::string json_;
  std::string fingerprint_;
  PreTokenizer pre_tokenizer_;  // made while file_ is read
  BpeTokenizerFile file_;
  SpecialTokens special_;
  AddedTokens added_;
  std::vector<int32_t> id_of_byte_;
  std::vector<bool> is_control_;  // [vocab_size]
  std::vector<bool> joins_;       // [256 * 256] pairs of bytes that some token has side by side
  std::unordered_map<uint64_t, Merge> merges_;
  std::unordered_map<std::string, int32_t> whole_pieces_;  // filled where merges are ignored
  mutable WordCachePool word_caches_;
};

}  // namespace dsmoe
