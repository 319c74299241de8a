#include "data/sentencepiece_model.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxPieceBytes = 4096;
constexpr uint32_t kTrieBlock = 256;
constexpr std::string_view kBlankMark = "\xE2\x96\x81";  // U+2581, a blank inside a piece
constexpr uint64_t kBpe = 2;                             // a model_type
constexpr uint64_t kWord = 3;

[[noreturn]] void fail(const std::string& source_name, const std::string& what) {
  throw Error(fmt::format("{}: expected a SentencePiece model: {}", source_name, what));
}

// One field of a protocol-buffers message.
struct WireField {
  uint64_t number = 0;
  uint64_t value = 0;      // of a varint
  std::string_view bytes;  // of a string or message
};

// Walks the fields of a message.
class WireReader {
 public:
  WireReader(std::string_view rest, const std::string& source_name)
      : rest_(rest), source_name_(source_name) {}

  bool next(WireField& field) {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = {key >> 3, 0, {}};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.bytes = take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.bytes = take(4);
        break;
      default:
        fail(source_name_, "unknown field type");
    }
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(source_name_, "a number does not end");
  }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) fail(source_name_, "it is cut off");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
  const std::string& source_name_;
};

// A double-array trie: unit i leads to block (i xor its offset) / 256; leaf units hold positions in
// the text that follows the trie.
void check_charsmap(std::string_view map, const std::string& source_name) {
  uint32_t trie_bytes = 0;
  if (map.size() > sizeof(trie_bytes)) std::memcpy(&trie_bytes, map.data(), sizeof(trie_bytes));
  if (trie_bytes == 0 || trie_bytes % (4 * kTrieBlock) != 0 ||
      trie_bytes + sizeof(trie_bytes) >= map.size() || map.back() != '\0') {
    fail(source_name, "its character map is malformed");
  }
  const size_t text_bytes = map.size() - sizeof(trie_bytes) - trie_bytes;
  std::vector<uint32_t> units(trie_bytes / 4);
  std::memcpy(units.data(), map.data() + sizeof(trie_bytes), trie_bytes);
  for (uint32_t i = 0; i < units.size(); ++i) {
    if (units[i] >> 31 != 0) continue;  // a leaf is never walked through
    const uint32_t child = i ^ ((units[i] >> 10) << ((units[i] & (1u << 9)) >> 6));
    const bool has_leaf = ((units[i] >> 8) & 1) != 0;
    if (child >= units.size() || (has_leaf && (units[child] & 0x7FFFFFFF) >= text_bytes)) {
      fail(source_name, "its character map points outside itself");
    }
  }
}

bool has_blank_after_text(std::string_view piece) {
  while (piece.starts_with(kBlankMark)) piece.remove_prefix(kBlankMark.size());
  return piece.find(kBlankMark) != piece.npos || piece.find(' ') != piece.npos;
}

void read_piece(std::string_view message,
                const std::string& source_name,
                SentencePieceModelTraits& traits) {
  WireReader reader(message, source_name);
  std::string_view piece;
  uint64_t type = 0;
  for (WireField field; reader.next(field);) {
    if (field.number == 1) piece = field.bytes;
    if (field.number == 3) type = field.value;
  }
  if (piece.size() > kMaxPieceBytes) fail(source_name, "a piece is too long");
  if (piece.size() > 1 && piece.find('\n') != piece.npos) traits.has_piece_over_lines = true;
  const bool matches_text = type != SentencePiece::kUnknown && type != SentencePiece::kControl &&
                            type != SentencePiece::kByte;
  if (!matches_text) return;
  if (has_blank_after_text(piece)) traits.has_piece_over_words = true;
  if (piece == kBlankMark) traits.has_blank_piece = true;
  if (piece.find('\n') != piece.npos) traits.has_line_piece = true;
}

void read_trainer(std::string_view message,
                  const std::string& source_name,
                  SentencePieceModelTraits& traits) {
  WireReader reader(message, source_name);
  for (WireField field; reader.next(field);) {
    if (field.number == 3) traits.is_bpe = field.value == kBpe;
    if (field.number == 3) traits.is_word = field.value == kWord;
    if (field.number == 24) traits.whitespace_is_suffix = field.value != 0;
    if (field.number == 35) traits.byte_fallback = field.value != 0;
  }
}

void read_normalizer(std::string_view message,
                     const std::string& source_name,
                     SentencePieceModelTraits& traits) {
  WireReader reader(message, source_name);
  for (WireField field; reader.next(field);) {
    if (field.number == 2 && !field.bytes.empty()) {
      check_charsmap(field.bytes, source_name);
      traits.charsmap = field.bytes;
    }
    if (field.number == 3) traits.add_dummy_prefix = field.value != 0;
    if (field.number == 4) traits.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) traits.escape_whitespaces = field.value != 0;
  }
}

void refuse_denormalizer(std::string_view message, const std::string& source_name) {
  WireReader reader(message, source_name);
  for (WireField field; reader.next(field);) {
    if (field.number == 2 && !field.bytes.empty()) {
      fail(source_name, "models that rewrite decoded text are not supported");
    }
  }
}

SentencePiece piece_from(std::string_view message) {
  SentencePiece piece;
  static const std::string kNoName;
  WireReader reader(message, kNoName);
  for (WireField field; reader.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == sizeof(piece.score)) {
      std::memcpy(&piece.score, field.bytes.data(), sizeof(piece.score));
    }
    if (field.number == 3) piece.type = static_cast<uint32_t>(field.value);
  }
  return piece;
}

// Writes the fields of a message.
class WireWriter {
 public:
  void number(uint32_t field, uint64_t value) {
    varint(uint64_t{field} << 3);
    varint(value);
  }
  void real(uint32_t field, float value) {
    varint((uint64_t{field} << 3) | 5);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void text(uint32_t field, std::string_view value) {
    varint((uint64_t{field} << 3) | 2);
    varint(value.size());
    bytes_.append(value);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

// A token of llama2.c as SentencePiece has it.
SentencePiece piece_of(const Llama2cToken& token, size_t id) {
  if (id == 0) return {"<unk>", token.score, SentencePiece::kUnknown};
  if (id == 1) return {"<s>", token.score, SentencePiece::kControl};
  if (id == 2) return {"</s>", token.score, SentencePiece::kControl};
  if (id < 3 + 256) return {token.text, token.score, SentencePiece::kByte};
  std::string text;
  for (const char c : token.text) c == ' ' ? text.append(kBlankMark) : text.append(1, c);
  return {text, token.score, SentencePiece::kNormal};
}

}  // namespace

SentencePieceModelTraits inspect_sentencepiece_model(std::string_view model_bytes,
                                                     const std::string& source_name) {
  if (model_bytes.empty()) fail(source_name, "it is empty");
  SentencePieceModelTraits traits;
  WireReader reader(model_bytes, source_name);
  for (WireField field; reader.next(field);) {
    if (field.number == 1) read_piece(field.bytes, source_name, traits);
    if (field.number == 2) read_trainer(field.bytes, source_name, traits);
    if (field.number == 3) read_normalizer(field.bytes, source_name, traits);
    if (field.number == 5) refuse_denormalizer(field.bytes, source_name);
  }
  return traits;
}

std::vector<SentencePiece> read_sentencepiece_pieces(std::string_view model_bytes) {
  std::vector<SentencePiece> pieces;
  static const std::string kNoName;
  WireReader reader(model_bytes, kNoName);
  for (WireField field; reader.next(field);) {
    if (field.number == 1) pieces.push_back(piece_from(field.bytes));
  }
  return pieces;
}

std::string sentencepiece_model_from(const std::vector<Llama2cToken>& tokens) {
  WireWriter model;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto piece = piece_of(tokens[id], id);
    WireWriter message;
    message.text(1, piece.text);
    message.real(2, piece.score);
    message.number(3, piece.type);
    model.text(1, message.bytes());
  }
  WireWriter trainer;
  trainer.number(3, kBpe);
  trainer.number(4, tokens.size());
  trainer.number(35, 1);  // byte_fallback
  model.text(2, trainer.bytes());
  WireWriter normalizer;
  normalizer.text(1, "identity");
  normalizer.number(3, 1);  // add_dummy_prefix
  normalizer.number(4, 0);  // remove_extra_whitespaces
  normalizer.number(5, 1);  // escape_whitespaces
  model.text(3, normalizer.bytes());
  return model.bytes();
}

}  // namespace dsmoe
