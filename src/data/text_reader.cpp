#include "data/text_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common/error.h"
#include "common/io.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{8} << 30;
constexpr std::string_view kDocumentEnd = "<|endoftext|>";

// Length of the well-formed character at `at` (Unicode table 3-7), 0 if there is none.
size_t character_bytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4 || !continues(1)) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) {
    const bool overlong = lead == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
    return !overlong && !surrogate && continues(2) ? 3 : 0;
  }
  const bool overlong = lead == 0xF0 && byte(1) < 0x90;
  const bool too_large = lead == 0xF4 && byte(1) >= 0x90;
  return !overlong && !too_large && continues(2) && continues(3) ? 4 : 0;
}

void check_utf8(const std::string& path, std::string_view text, bool by_line) {
  const size_t bad = find_invalid_utf8(text);
  if (bad == std::string_view::npos) return;
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(bad), '\n');
  throw Error(fmt::format("{}{}: expected UTF-8, got byte 0x{:02x} at offset {}",
                          path,
                          by_line ? fmt::format(":{}", line) : "",
                          static_cast<unsigned char>(text[bad]),
                          bad));
}

std::string text_of_line(const std::string& line, const std::string& source_name) {
  const auto record = parse_json(line, source_name, kMaxFileBytes);
  const auto found = record.is_object() ? record.find("text") : record.end();
  if (found == record.end() || !found->is_string()) {
    throw Error(fmt::format("{}: expected an object whose key 'text' is a string", source_name));
  }
  return found->get<std::string>();
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

int64_t read_json_lines(const std::string& path,
                        std::string_view bytes,
                        const std::function<void(std::string_view)>& document) {
  int64_t n_documents = 0;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string line(bytes.substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    if (is_blank(line)) continue;
    const std::string text = text_of_line(line, fmt::format("{}:{}", path, line_number));
    if (text.empty()) continue;
    document(text);
    ++n_documents;
  }
  return n_documents;
}

int64_t read_plain_text(std::string_view bytes,
                        const std::function<void(std::string_view)>& document) {
  int64_t n_documents = 0;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find(kDocumentEnd, begin), bytes.size());
    if (end > begin) {
      document(bytes.substr(begin, end - begin));
      ++n_documents;
    }
    begin = end + kDocumentEnd.size();
  }
  return n_documents;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    uint64_t eight = 0;
    if (at + sizeof(eight) <= text.size()) {
      std::memcpy(&eight, text.data() + at, sizeof(eight));
      if ((eight & 0x8080808080808080u) == 0) {
        at += sizeof(eight);
        continue;
      }
    }
    const size_t length = character_bytes(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

void read_documents(const std::string& path,
                    const std::function<void(std::string_view text)>& document) {
  const bool by_line = path.ends_with(".jsonl");
  const std::string bytes = read_file(posix_io(), path, kMaxFileBytes);
  if (bytes.empty()) throw Error(fmt::format("{}: expected text, got an empty file", path));
  check_utf8(path, bytes, by_line);
  const int64_t n_documents =
      by_line ? read_json_lines(path, bytes, document) : read_plain_text(bytes, document);
  if (n_documents == 0) throw Error(fmt::format("{}: expected text, got no document", path));
}

}  // namespace dsmoe
