#include "data/text_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "data/utf8.h"
#include "formats/compressed_file.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kMaxLineBytes = size_t{1} << 30;

using OnPart = std::function<void(const TextPart&)>;

bool is_json_lines(std::string_view path) {
  for (const std::string_view ending : {".gz", ".zst", ".zstd"}) {
    if (path.ends_with(ending)) path.remove_suffix(ending.size());
  }
  return path.ends_with(".jsonl") || path.ends_with(".ndjson");
}

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
    cut(separator_.size() + 1, file_position);
  }
  void finish(uint64_t file_position) {
    cut(0, file_position);
    documents_.end(pending_, file_position);
    pending_.clear();
  }

 private:
  // Gives out what is known not to change with `held_back` further bytes.
  void cut(size_t held_back, uint64_t file_position) {
    std::string_view rest = pending_;
    while (!separator_.empty()) {
      const size_t at = rest.find(separator_);
      const size_t after = at + separator_.size();
      if (at == rest.npos || rest.size() < after + (held_back > 0 ? 1 : 0)) break;
      const bool begins_line = at > 0 ? rest[at - 1] == '\n' : at_line_start_;
      const bool ends_line = after < rest.size() && rest[after] == '\n';
      documents_.end(rest.substr(0, at), file_position);
      rest.remove_prefix(after + (begins_line && ends_line ? 1 : 0));
      at_line_start_ = begins_line && ends_line;
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

[[noreturn]] void fail_utf8(const std::string& source_name, char byte, const std::string& place) {
  throw Error(fmt::format("{}: expected UTF-8, got byte 0x{:02x} at {}",
                          source_name,
                          static_cast<unsigned char>(byte),
                          place));
}

void read_plain_text(CompressedFile& file,
                     const std::string& path,
                     const TextFormat& format,
                     Documents& documents) {
  PlainText text(format.separator, documents);
  Utf8Stream utf8;
  std::vector<char> buffer(kReadBytes);
  uint64_t offset = 0;  // of the characters given out
  const auto push = [&](const std::string& characters) {
    const size_t bad = find_invalid_utf8(characters);
    if (bad != std::string::npos) {
      fail_utf8(path, characters[bad], fmt::format("offset {}", offset + bad));
    }
    offset += characters.size();
    text.push(characters, file.file_position());
  };
  while (const size_t n = file.read(buffer.data(), buffer.size())) {
    push(utf8.push({buffer.data(), n}));
  }
  push(utf8.finish());
  if (offset == 0) throw Error(fmt::format("{}: expected text, got an empty file", path));
  text.finish(file.file_position());
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

std::string text_of_line(std::string_view line,
                         const std::string& field,
                         const std::string& source_name) {
  const size_t bad = find_invalid_utf8(line);
  if (bad != line.npos) fail_utf8(source_name, line[bad], fmt::format("byte {} of the line", bad));
  const auto record = parse_json(std::string(line), source_name, kMaxLineBytes);
  const auto found = record.is_object() ? record.find(field) : record.end();
  if (found == record.end() || !found->is_string()) {
    throw Error(
        fmt::format("{}: expected an object whose key '{}' is a string", source_name, field));
  }
  return found->get<std::string>();
}

void read_json_lines(CompressedFile& file,
                     const std::string& path,
                     const TextFormat& format,
                     Documents& documents) {
  std::vector<char> buffer(kReadBytes);
  std::string pending;  // the beginning of a line
  int64_t line_number = 0;
  const auto add_line = [&](std::string_view line) {
    ++line_number;
    if (is_blank(line)) return;
    documents.end(text_of_line(line, format.field, fmt::format("{}:{}", path, line_number)),
                  file.file_position());
  };
  while (const size_t n = file.read(buffer.data(), buffer.size())) {
    std::string_view rest(buffer.data(), n);
    for (size_t end = rest.find('\n'); end != rest.npos; end = rest.find('\n')) {
      pending += rest.substr(0, end);
      add_line(pending);
      pending.clear();
      rest.remove_prefix(end + 1);
    }
    pending += rest;
    if (pending.size() > kMaxLineBytes) {
      throw Error(fmt::format(
          "{}:{}: expected a line of at most {} bytes", path, line_number + 1, kMaxLineBytes));
    }
  }
  add_line(pending);
}

}  // namespace

void read_text_parts(Io& io,
                     const std::string& path,
                     const TextFormat& format,
                     const std::function<void(const TextPart&)>& on_part) {
  CompressedFile file(io, path);
  if (file.file_bytes() == 0) {
    throw Error(fmt::format("{}: expected text, got an empty file", path));
  }
  Documents documents(on_part);
  if (is_json_lines(path)) {
    read_json_lines(file, path, format, documents);
  } else {
    read_plain_text(file, path, format, documents);
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
