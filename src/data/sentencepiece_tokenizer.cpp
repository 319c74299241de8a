#include "data/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "common/error.h"
#include "data/sentencepiece_model.h"
#include "data/utf8.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

constexpr std::string_view kBlankPiece = "\xE2\x96\x81";  // U+2581, a blank inside a piece

std::string with_blanks(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool is_mark = piece.starts_with(kBlankPiece);
    text.push_back(is_mark ? ' ' : piece[0]);
    piece.remove_prefix(is_mark ? kBlankPiece.size() : 1);
  }
  return text;
}

char byte_of_piece(const std::string& piece, const std::string& source_name) {
  const auto digit = [](char letter) {
    return static_cast<int>(std::string_view("0123456789ABCDEF").find(letter));
  };
  if (piece.size() != 6 || digit(piece[3]) < 0 || digit(piece[4]) < 0) {
    throw Error(fmt::format("{}: expected a byte piece as <0x0A>, got {}", source_name, piece));
  }
  return static_cast<char>(16 * digit(piece[3]) + digit(piece[4]));
}

// A text can be cut before a blank that begins a word, and around a line feed.
bool begins_word(std::string_view text, size_t at) {
  return text[at] == ' ' && at > 0 && text[at - 1] != ' ' &&
         !text.substr(0, at).ends_with(kBlankPiece);
}

// Returns whether U+2581 itself may be the last character that the normalizer leaves of a text: the
// normalizer may remove any character after it.
bool ends_with_mark(std::string_view text) {
  const size_t mark = text.rfind(kBlankPiece);
  if (mark == text.npos) return false;
  const auto rest = text.substr(mark);
  return std::none_of(
      rest.begin(), rest.end(), [](unsigned char c) { return c < 0x80 && std::isalnum(c) != 0; });
}

std::unique_ptr<sentencepiece::SentencePieceProcessor> load_processor(
    const std::string& model_bytes,
    const std::string& source_name) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto(model_bytes);
  if (!status.ok()) {
    throw Error(
        fmt::format("{}: expected a SentencePiece model: {}", source_name, status.ToString()));
  }
  return processor;
}

std::optional<int32_t> defined_id(int id) {
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string model_bytes,
                                               const std::string& source_name)
    : SentencePieceTokenizer(std::move(model_bytes), source_name, nullptr) {}

SentencePieceTokenizer::SentencePieceTokenizer(std::string model_bytes,
                                               const std::string& source_name,
                                               SpecialTokens special)
    : SentencePieceTokenizer(std::move(model_bytes), source_name, &special) {}

// special: null for the model's own special tokens.
SentencePieceTokenizer::SentencePieceTokenizer(std::string model_bytes,
                                               const std::string& source_name,
                                               const SpecialTokens* special)
    : model_bytes_(std::move(model_bytes)), fingerprint_("sentencepiece-" + hash64(model_bytes_)) {
  traits_ = inspect_sentencepiece_model(model_bytes_, source_name);
  processor_ = load_processor(model_bytes_, source_name);
  drops_leading_blank_ = traits_.add_dummy_prefix || traits_.remove_extra_whitespaces;
  drops_leading_blanks_ = traits_.remove_extra_whitespaces;
  if (special != nullptr) special_ = *special;
  choose_cuts(source_name);
  fill_surfaces(source_name);
  if (special == nullptr) {
    special_.bos = defined_id(processor_->bos_id());
    special_.adds_bos = special_.bos.has_value();
    if (processor_->eos_id() >= 0) special_.eos = {processor_->eos_id()};
    special_.pad = defined_id(processor_->pad_id());
  }
  add_surfaces(source_name);
}

// Without byte fallback the library joins neighbouring unknown characters into one.
void SentencePieceTokenizer::choose_cuts(const std::string& source_name) {
  const bool has_plain_blanks = traits_.escape_whitespaces && !traits_.whitespace_is_suffix;
  const bool normalizes = traits_.remove_extra_whitespaces || !traits_.charsmap.empty();
  if (!traits_.charsmap.empty()) charsmap_ = SentencePieceCharsmap(traits_.charsmap);
  if (has_plain_blanks && !normalizes && !traits_.has_piece_over_lines &&
      (traits_.byte_fallback || !traits_.add_dummy_prefix)) {
    // Neither the normalizer nor a piece reaches across a line feed.
    const bool by_words = traits_.is_bpe && traits_.byte_fallback && !traits_.has_piece_over_words;
    cuts_ = by_words ? Cuts::kWords : Cuts::kLines;
  } else if (has_plain_blanks && !traits_.has_piece_over_words && !traits_.is_word &&
             (traits_.byte_fallback || traits_.has_blank_piece)) {
    cuts_ = Cuts::kNormalizedWords;
  }
  const bool takes_blanks_away =
      cuts_ == Cuts::kNormalizedWords && traits_.remove_extra_whitespaces;
  // Fields of a later message override: normalizer_spec { add_dummy_prefix: false or true }.
  if ((cuts_ != Cuts::kNone && !takes_blanks_away) || !special_.added.empty()) {
    const std::string no_prefix("\x1A\x02\x18\x00", 4);
    rest_processor_ = load_processor(model_bytes_ + no_prefix, source_name);
  }
  continued_ = rest_processor_.get();
  if (!takes_blanks_away) return;
  // The blank of a cut is taken away with the white space that begins the text, and put back.
  if (!traits_.add_dummy_prefix) {
    word_processor_ = load_processor(model_bytes_ + "\x1A\x02\x18\x01", source_name);
  }
  continued_ = word_processor_ ? word_processor_.get() : processor_.get();
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::fill_surfaces(const std::string& source_name) {
  for (int id = 0; id < processor_->GetPieceSize(); ++id) {
    const std::string& piece = processor_->IdToPiece(id);
    Surface surface;
    if (processor_->IsByte(id)) {
      surface.text = byte_of_piece(piece, source_name);
    } else if (processor_->IsUnknown(id)) {
      processor_->Decode(std::vector<int>{id}, &surface.text).IgnoreError();
    } else if (!processor_->IsControl(id)) {
      surface.text = with_blanks(piece);
      surface.begins_with_mark = piece.starts_with(kBlankPiece);
    }
    surfaces_.push_back(std::move(surface));
  }
}

void SentencePieceTokenizer::add_surfaces(const std::string& source_name) {
  const auto& added = special_.added;
  const int64_t end = n_pieces() + static_cast<int64_t>(added.size());
  for (const auto& token : added) {
    if (token.id >= end) {
      throw Error(fmt::format("{}: expected added tokens to follow the {} pieces, got the id {}",
                              source_name,
                              n_pieces(),
                              token.id));
    }
    const auto index = static_cast<size_t>(token.id);
    if (index >= surfaces_.size()) surfaces_.resize(index + 1, Surface{.is_token = false});
    surfaces_[index] = {.text = token.special ? "" : token.content};
  }
  if (special_.bos && !has_token(*special_.bos)) {
    throw Error(fmt::format(
        "{}: BOS {} is outside the vocabulary of {}", source_name, *special_.bos, vocab_size()));
  }
  fingerprint_ += added_tokens_fingerprint(special_);
  added_ = AddedTokens(added);
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text) const {
  const size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos) {
    throw Error(fmt::format("sentencepiece: expected UTF-8, got byte 0x{:02x} at offset {}",
                            static_cast<unsigned char>(text[bad]),
                            bad));
  }
  return encode_parts(text, Before::kNothing);
}

std::vector<int32_t> SentencePieceTokenizer::encode_rest(std::string_view text) const {
  return encode_parts(text, Before::kText);
}

// Encodes the texts between added tokens separately.
std::vector<int32_t> SentencePieceTokenizer::encode_parts(std::string_view text,
                                                          Before before) const {
  if (added_.empty()) return encode_units(text, before);
  const auto after_token = special_.prefixes_every_piece ? Before::kNothing : Before::kAddedToken;
  std::vector<int32_t> ids;
  for (const auto& part : added_.split(text)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      const bool is_first = part.text.data() == text.data();
      const auto inner = encode_units(part.text, is_first ? before : after_token);
      ids.insert(ids.end(), inner.begin(), inner.end());
    }
  }
  return ids;
}

// Returns whether the normalizer makes a blank of the character at `at` and nothing joins it with
// the text before. If it keeps every blank, a run of blanks may be one piece and is not cut.
bool SentencePieceTokenizer::begins_normalized_word(std::string_view text, size_t at) const {
  const auto is_space = [](char c) { return c == ' ' || c == '\n'; };
  if (at == 0 || !is_space(text[at]) || is_space(text[at - 1])) return false;
  const auto match = charsmap_.longest(text.substr(at));
  const bool is_blank = match.size_bytes == 0 ? text[at] == ' '
                                              : match.size_bytes == 1 && match.replacement == " " &&
                                                    (text[at] == ' ' || !traits_.has_line_piece);
  if (!is_blank || ends_with_mark(text.substr(0, at))) return false;
  // A blank that a key ends with would be one piece with this one.
  if (!traits_.remove_extra_whitespaces && charsmap_.ends_key(text, at)) return false;
  return charsmap_.can_cut(text, at);
}

bool SentencePieceTokenizer::can_cut(std::string_view text, size_t at) const {
  if (cuts_ == Cuts::kNormalizedWords) return at < text.size() && begins_normalized_word(text, at);
  return text[at - 1] == '\n' ||
         (cuts_ == Cuts::kWords && at < text.size() && begins_word(text, at));
}

size_t SentencePieceTokenizer::divide(std::string_view text) const {
  if (cuts_ == Cuts::kNone) return 0;
  size_t least = 1;
  if (cuts_ == Cuts::kNormalizedWords && !traits_.add_dummy_prefix) {
    // Only the first word of a text has no blank: a word must be before the cut.
    const auto is_word = [](unsigned char c) { return c < 0x80 && std::isalnum(c) != 0; };
    least = static_cast<size_t>(std::find_if(text.begin(), text.end(), is_word) - text.begin()) + 1;
  }
  for (size_t at = text.size(); at >= least; --at) {
    if (can_cut(text, at) && added_.can_cut(text, at)) return at;
  }
  return 0;
}

// Returns the bytes of the first piece of text that is encoded separately.
size_t SentencePieceTokenizer::unit_bytes(std::string_view text) const {
  if (cuts_ == Cuts::kNone) return text.size();
  if (cuts_ == Cuts::kLines) return std::min(text.find('\n'), text.size() - 1) + 1;
  size_t at = 1;
  if (cuts_ == Cuts::kNormalizedWords) {
    while (at < text.size() && !begins_normalized_word(text, at)) ++at;
    return at;
  }
  if (text[0] == '\n') return 1;
  while (at < text.size() && text[at] != '\n' && !begins_word(text, at)) ++at;
  return at;
}

std::vector<int32_t> SentencePieceTokenizer::encode_units(std::string_view text,
                                                          Before before) const {
  const bool has_words = cuts_ == Cuts::kWords || cuts_ == Cuts::kNormalizedWords;
  std::vector<int32_t> ids;
  std::vector<int> unit_ids;
  const auto cache = word_caches_.borrow();
  while (!text.empty()) {
    const auto unit = text.substr(0, unit_bytes(text));
    text.remove_prefix(unit.size());
    const bool cached = has_words && before == Before::kText;
    const auto* known = cached ? cache->find(unit) : nullptr;
    if (known == nullptr) {
      const auto& processor = before == Before::kNothing ? *processor_
                              : before == Before::kText  ? *continued_
                                                         : *rest_processor_;
      const auto status = processor.Encode(unit, &unit_ids);
      if (!status.ok()) throw Error("sentencepiece: cannot encode: " + status.ToString());
      if (cached) cache->insert(unit, unit_ids);
      known = &unit_ids;
    }
    ids.insert(ids.end(), known->begin(), known->end());
    // A unit that the normalizer removes completely leaves the text at its beginning.
    if (!ids.empty() || cuts_ != Cuts::kNormalizedWords) before = Before::kText;
  }
  return ids;
}

std::string SentencePieceTokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  bool at_start = true;
  for (const int32_t id : ids) {
    if (id < 0) throw Error(fmt::format("sentencepiece: expected ids of 0 or more, got {}", id));
    if (id >= vocab_size()) continue;
    const Surface& surface = surfaces_[static_cast<size_t>(id)];
    std::string_view piece = surface.text;
    if (at_start && drops_leading_blank_ && surface.begins_with_mark) {
      piece.remove_prefix(1);
      at_start = drops_leading_blanks_;
    }
    text += piece;
    at_start = at_start && text.empty();
  }
  return text;
}

int64_t SentencePieceTokenizer::vocab_size() const {
  return static_cast<int64_t>(surfaces_.size());
}

bool SentencePieceTokenizer::has_token(int64_t id) const {
  return id >= 0 && id < vocab_size() && surfaces_[static_cast<size_t>(id)].is_token;
}

int64_t SentencePieceTokenizer::n_pieces() const { return processor_->GetPieceSize(); }

std::string SentencePieceTokenizer::token_name(int32_t id) const {
  const auto* added = special_.find(id);
  return added != nullptr ? added->content : processor_->IdToPiece(id);
}

}  // namespace dsmoe
