#include "data/text_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/text_lines.h"
#include "data/utf8.h"

namespace dsmoe {
namespace {

constexpr size_t kPartBytes = 1 << 20;

using OnPart = std::function<void(const TextPart&)>;

// Makes parts of pieces of text: holds back a document's beginning until it is known not to be
// empty.
class Documents {
 public:
  explicit Documents(const OnPart& on_part) : on_part_(on_part) {}

  void add(std::string_view text, uint64_t file_position) {
    if (text.empty()) return;
    on_part_({text, !open_, false, file_position});
    open_ = true;
  }
  void end(std::string_view text, uint64_t file_position) {
    if (text.empty() && !open_) return;
    while (text.size() > kPartBytes) {
      size_t size = kPartBytes;
      while (!begins_character(text[size])) --size;
      add(text.substr(0, size), file_position);
      text.remove_prefix(size);
    }
    on_part_({text, !open_, true, file_position});
    open_ = false;
    ++count_;
  }
  int64_t count() const { return count_; }

 private:
  const OnPart& on_part_;
  bool open_ = false;
  int64_t count_ = 0;
};

// Cuts a stream of characters at separators.
class PlainText {
 public:
  PlainText(std::string separator, Documents& documents)
      : separator_(std::move(separator)), documents_(documents) {}

  void push(std::string_view text, uint64_t file_position) {
    pending_ += text;
    // A separator may still be incomplete, or its line end not yet read.
    cut(separator_.size() + 2, file_position);
  }
  void finish(uint64_t file_position) {
    cut(0, file_position);
    documents_.end(pending_, file_position);
    pending_.clear();
  }

 private:
  static size_t line_end_bytes(std::string_view text) {
    return text.starts_with('\n') ? 1 : text.starts_with("\r\n") ? 2 : 0;
  }

  // Emits the text that `held_back` further bytes cannot change.
  void cut(size_t held_back, uint64_t file_position) {
    std::string_view rest = pending_;
    while (!separator_.empty()) {
      const size_t at = rest.find(separator_);
      const size_t after = at + separator_.size();
      if (at == rest.npos || rest.size() < after + (held_back > 0 ? 2 : 0)) break;
      const bool begins_line = at > 0 ? rest[at - 1] == '\n' : at_line_start_;
      const size_t n_end = begins_line ? line_end_bytes(rest.substr(after)) : 0;
      documents_.end(rest.substr(0, at), file_position);
      rest.remove_prefix(after + n_end);
      at_line_start_ = n_end > 0;
    }
    size_t known = rest.size() - std::min(rest.size(), held_back);
    while (known > 0 && known < rest.size() && (rest[known] & 0xC0) == 0x80) --known;
    if (held_back > 0 && known > 0) {
      documents_.add(rest.substr(0, known), file_position);
      at_line_start_ = rest[known - 1] == '\n';
      rest.remove_prefix(known);
    }
    pending_.erase(0, pending_.size() - rest.size());
  }

  std::string separator_;
  Documents& documents_;
  std::string pending_;
  bool at_line_start_ = true;
};

void read_plain_text(TextFile& file, const TextFormat& format, Documents& documents) {
  PlainText text(format.separator, documents);
  Utf8Stream utf8;
  uint64_t offset = file.mark_bytes();  // file offset of the emitted characters
  const auto push = [&](const std::string& characters) {
    const size_t bad = find_invalid_utf8(characters);
    if (bad != std::string::npos) {
      throw Error(fmt::format("{}: expected UTF-8, got byte 0x{:02x} at offset {}",
                              file.path(),
                              static_cast<unsigned char>(characters[bad]),
                              offset + bad));
    }
    offset += characters.size();
    text.push(characters, file.file_position());
  };
  for (auto piece = file.next(); !piece.empty(); piece = file.next()) push(utf8.push(piece));
  push(utf8.finish());
  if (offset == file.mark_bytes()) {
    throw Error(fmt::format("{}: expected text, got an empty file", file.path()));
  }
  text.finish(file.file_position());
}

std::string text_of_line(const TextLine& line, const std::string& field) {
  auto record = parse_json_line(line);
  const auto found = record.find(field);
  if (found == record.end() || !found->is_string()) {
    throw Error(
        fmt::format("{}: expected an object whose key '{}' is a string; --field names "
                    "another key",
                    line.place,
                    field));
  }
  return std::move(found->get_ref<std::string&>());
}

}  // namespace

void read_text_parts(Io& io,
                     const std::string& path,
                     const TextFormat& format,
                     const std::function<void(const TextPart&)>& on_part) {
  TextFile file(io, path);
  if (file.file_bytes() == 0) {
    throw Error(fmt::format("{}: expected text, got an empty file", file.path()));
  }
  Documents documents(on_part);
  if (holds_json_lines(file, format.field)) {
    const auto field = format.field.empty() ? "text" : format.field;
    read_json_lines(file, [&](const TextLine& line) {
      documents.end(text_of_line(line, field), file.file_position());
    });
  } else {
    read_plain_text(file, format, documents);
  }
  if (documents.count() == 0) throw Error(fmt::format("{}: expected text, got no document", path));
}

void read_documents(const std::string& path,
                    const std::function<void(std::string_view text)>& on_document,
                    const TextFormat& format) {
  std::string document;
  read_text_parts(posix_io(), path, format, [&](const TextPart& part) {
    if (part.is_first && part.is_last) return on_document(part.text);
    document += part.text;
    if (!part.is_last) return;
    on_document(document);
    document.clear();
  });
}

}  // namespace dsmoe
