#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsmoe {

/// A token that is found in a text as it is spelled, before the text is cut into pieces.
struct AddedToken {
  int32_t id = 0;
  std::string content = {};
  bool special = false;      ///< a control token: decodes to nothing
  bool single_word = false;  ///< found only where no letter, digit or '_' touches it
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space after it
  bool normalized = false;   ///< found in the normalized text, after the tokens that are not

  bool operator==(const AddedToken&) const = default;
};

/// The special tokens of a tokenizer: beginning and end of a text, padding, and added tokens, which
/// are found in a text as spelled. Data sets and checkpoints store it.
struct SpecialTokens {
  std::optional<int32_t> bos = {};
  bool adds_bos = false;  ///< encoding a text puts BOS first
  bool adds_eos = false;  ///< Hugging Face's tokenizer appends EOS; recorded for exports only
  /// Every id that ends a generated text. The first ends documents in shards.
  std::vector<int32_t> eos = {};
  std::optional<int32_t> pad = {};
  std::vector<AddedToken> added = {};
  /// A SentencePiece model puts its leading blank before every piece between added tokens
  /// ("legacy" in Hugging Face's terms) instead of before the text only.
  bool prefixes_every_piece = false;

  bool is_eos(int32_t id) const;
  /// The added token of that spelling, or null.
  const AddedToken* find(std::string_view content) const;
  /// The added token of that id, or null.
  const AddedToken* find(int32_t id) const;
  bool operator==(const SpecialTokens&) const = default;
};

/// The largest id of a token that any reader accepts.
constexpr int32_t kMaxSpecialId = 1 << 24;

/// The object `special_tokens` of a checkpoint's `tokenizer.json`; flags that are false are left
/// out.
nlohmann::ordered_json special_tokens_to_json(const SpecialTokens& special);
/// Reads it back. Throws Error naming source_name and the key that does not fit.
SpecialTokens special_tokens_from_json(const nlohmann::json& json, const std::string& source_name);

/// Returns the part of a tokenizer's fingerprint that covers added tokens: a hash of everything
/// that changes ids; empty if there are none.
std::string added_tokens_fingerprint(const SpecialTokens& special);

/// An added token as Hugging Face's files write it: `content` and flags. `normalized` is by default
/// the opposite of `special`. Throws Error naming source_name.
AddedToken added_token_from_json(const nlohmann::json& json,
                                 int32_t id,
                                 const std::string& source_name);
/// The same form, all flags included, without the id.
nlohmann::ordered_json added_token_to_json(const AddedToken& token);

/// Sets `bos_token_id`, `eos_token_id` (a number, or a list where there are several) and
/// `pad_token_id` of a Hugging Face config; null where there is none.
void set_special_ids(nlohmann::ordered_json& config, const SpecialTokens& special);

/// Special tokens that a `post_processor` puts around a text.
struct TextTemplate {
  bool is_there = false;
  std::string before;  ///< the special token that comes first; empty: none
  std::string after;   ///< the special token that comes last; empty: none
};
/// Reads the template `single` of a TemplateProcessing step. Throws Error naming source_name.
TextTemplate text_template(const nlohmann::json& post_processor, const std::string& source_name);

}  // namespace dsmoe
