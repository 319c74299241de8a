#include "data/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "data/sentencepiece_model.h"
#include "data/text_reader.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

constexpr std::string_view kBlankMark = "\xE2\x96\x81";  // U+2581, a blank inside a piece

std::string with_blanks(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool is_mark = piece.starts_with(kBlankMark);
    text.push_back(is_mark ? ' ' : piece[0]);
    piece.remove_prefix(is_mark ? kBlankMark.size() : 1);
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

std::optional<int32_t> defined_id(int id) {
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string model_bytes,
                                               const std::string& source_name)
    : model_bytes_(std::move(model_bytes)),
      fingerprint_("sentencepiece-" + hash64(model_bytes_)),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto traits = inspect_sentencepiece_model(model_bytes_, source_name);
  const auto status = processor_->LoadFromSerializedProto(model_bytes_);
  if (!status.ok()) {
    throw Error(
        fmt::format("{}: expected a SentencePiece model: {}", source_name, status.ToString()));
  }
  drops_leading_blank_ = traits.add_dummy_prefix || traits.remove_extra_whitespaces;
  drops_leading_blanks_ = traits.remove_extra_whitespaces;
  // Nothing then looks across a line feed: neither the normalizer nor a piece.
  encodes_lines_apart_ =
      !drops_leading_blank_ && !traits.has_charsmap && !traits.has_piece_over_lines;
  fill_surfaces(source_name);
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
      surface.begins_with_mark = piece.starts_with(kBlankMark);
    }
    surfaces_.push_back(std::move(surface));
  }
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text) const {
  const size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos) {
    throw Error(fmt::format("sentencepiece: expected UTF-8, got byte 0x{:02x} at offset {}",
                            static_cast<unsigned char>(text[bad]),
                            bad));
  }
  std::vector<int32_t> ids;
  std::vector<int> part_ids;
  for (size_t begin = 0; begin < text.size();) {
    const size_t line_end = encodes_lines_apart_ ? text.find('\n', begin) : text.npos;
    const size_t end = line_end == text.npos ? text.size() : line_end + 1;
    const auto status = processor_->Encode(text.substr(begin, end - begin), &part_ids);
    if (!status.ok()) throw Error("sentencepiece: cannot encode: " + status.ToString());
    ids.insert(ids.end(), part_ids.begin(), part_ids.end());
    begin = end;
  }
  return ids;
}

std::string SentencePieceTokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  bool at_start = true;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      throw Error(fmt::format("sentencepiece: expected ids in [0, {}), got {}", vocab_size(), id));
    }
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

std::optional<int32_t> SentencePieceTokenizer::bos_id() const {
  return defined_id(processor_->bos_id());
}

std::optional<int32_t> SentencePieceTokenizer::eos_id() const {
  return defined_id(processor_->eos_id());
}

}  // namespace dsmoe
