#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer.h"
#include "formats/tokenizer_json.h"

namespace dsmoe {

/// Byte-level BPE of Hugging Face's `tokenizer.json`: added tokens are cut out first, the rest is
/// cut into pieces by a regular expression (PCRE2), and the bytes of each piece are merged in order
/// of priority, in time n log n of its length.
class HfBpeTokenizer final : public Tokenizer {
 public:
  /// From the bytes of a `tokenizer.json`. bos, eos: ids, where the file itself names none. Throws
  /// Error naming source_name.
  HfBpeTokenizer(std::string json,
                 const std::string& source_name,
                 std::optional<int32_t> bos,
                 std::optional<int32_t> eos);
  ~HfBpeTokenizer() override;

  /// Throws Error if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const override;
  /// Control tokens decode to nothing.
  std::string decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(file_.token_bytes.size()); }
  std::optional<int32_t> bos_id() const override { return bos_; }
  std::optional<int32_t> eos_id() const override { return eos_; }
  std::string fingerprint() const override { return fingerprint_; }

  const std::string& json() const { return json_; }
  const BpeTokenizerFile& file() const { return file_; }

 private:
  struct Pattern;
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const;
  const Merge* find_merge(int32_t left, int32_t right) const;

  std::string json_;
  std::string fingerprint_;
  std::unique_ptr<Pattern> pattern_;  // made while file_ is read
  BpeTokenizerFile file_;
  std::optional<int32_t> bos_;
  std::optional<int32_t> eos_;
  std::vector<int32_t> id_of_byte_;
  std::vector<bool> is_control_;  // [vocab_size]
  std::unordered_map<uint64_t, Merge> merges_;
  std::unordered_map<std::string, int32_t> whole_pieces_;  // filled where merges are ignored
};

}  // namespace dsmoe
