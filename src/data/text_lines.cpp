#include "data/text_lines.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "common/log.h"
#include "common/standard_input.h"
#include "data/utf8.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kMaxLineBytes = size_t{1} << 30;
constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

std::string_view strip(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  const size_t begin = line.find_first_not_of(kBlanks);
  if (begin == line.npos) return {};
  return line.substr(begin, line.find_last_not_of(kBlanks) + 1 - begin);
}

// Without blanks; empty if the piece holds no line that is not blank.
std::string_view first_line(std::string_view piece) {
  std::string_view line;
  while (!piece.empty() && line.empty()) {
    const size_t end = std::min(piece.find('\n'), piece.size());
    line = strip(piece.substr(0, end));
    piece.remove_prefix(std::min(end + 1, piece.size()));
  }
  return line;
}

bool begins_with_object(const TextFile& file) {
  const auto line = first_line(file.beginning());
  return line.starts_with('{') && nlohmann::json::accept(line);
}

bool ends_with_ignoring_case(std::string_view path, std::string_view ending) {
  if (path.size() < ending.size()) return false;
  return std::equal(ending.begin(),
                    ending.end(),
                    path.end() - static_cast<int64_t>(ending.size()),
                    [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b); });
}

bool is_named_json(std::string_view path) {
  for (const std::string_view ending : {".gz", ".zst", ".zstd"}) {
    if (ends_with_ignoring_case(path, ending)) path.remove_suffix(ending.size());
  }
  for (const std::string_view ending : {".jsonl", ".ndjson", ".json"}) {
    if (ends_with_ignoring_case(path, ending)) return true;
  }
  return false;
}

[[noreturn]] void refuse_whole(const TextFile& file, const char* what, const char* filter) {
  throw Error(
      fmt::format("{}: expected one JSON object a line, got {}; jq -c '{}' FILE > FILE.jsonl makes "
                  "such lines",
                  file.path(),
                  what,
                  filter));
}

}  // namespace

TextFile::TextFile(Io& io, const std::string& path)
    : path_(path == kStandardInput ? kStandardInputName : path),
      file_(io, path),
      buffer_(kPieceBytes) {
  fill();
  if (piece_.starts_with("\xFF\xFE") || piece_.starts_with("\xFE\xFF")) {
    throw Error(
        fmt::format("{}: expected UTF-8, got UTF-16; iconv -f UTF-16 -t UTF-8 converts it", path));
  }
  if (!piece_.starts_with(kUtf8Mark)) return;
  mark_bytes_ = kUtf8Mark.size();
  piece_.remove_prefix(kUtf8Mark.size());
}

void TextFile::fill() {
  size_t n_bytes = 0;
  while (n_bytes < buffer_.size()) {
    const size_t n = file_.read(buffer_.data() + n_bytes, buffer_.size() - n_bytes);
    if (n == 0) break;
    n_bytes += n;
  }
  piece_ = {buffer_.data(), n_bytes};
}

std::string_view TextFile::next() {
  if (is_begun_) fill();
  is_begun_ = true;
  return piece_;
}

void read_lines(TextFile& file, const std::function<void(const TextLine&)>& on_line) {
  std::string pending;  // the beginning of a line
  int64_t number = 0;
  const auto end_line = [&](std::string_view text) {
    ++number;
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (!strip(text).empty()) on_line({text, fmt::format("{}:{}", file.path(), number)});
    pending.clear();
  };
  for (auto piece = file.next(); !piece.empty(); piece = file.next()) {
    for (size_t end = piece.find('\n'); end != piece.npos; end = piece.find('\n')) {
      pending += piece.substr(0, end);
      end_line(pending);
      piece.remove_prefix(end + 1);
    }
    pending += piece;
    if (pending.size() > kMaxLineBytes) {
      throw Error(fmt::format(
          "{}:{}: expected a line of at most {} bytes", file.path(), number + 1, kMaxLineBytes));
    }
  }
  end_line(pending);
}

void read_json_lines(TextFile& file, const std::function<void(const TextLine&)>& on_line) {
  const auto line = first_line(file.beginning());
  if (line.starts_with('[')) refuse_whole(file, "a JSON array", ".[]");
  if (line == "{") refuse_whole(file, "an object over several lines", ".");
  read_lines(file, on_line);
}

void check_utf8(const TextLine& line) {
  const size_t bad = find_invalid_utf8(line.text);
  if (bad == line.text.npos) return;
  throw Error(fmt::format("{}: expected UTF-8, got byte 0x{:02x} at byte {} of the line",
                          line.place,
                          static_cast<unsigned char>(line.text[bad]),
                          bad));
}

nlohmann::json parse_json_line(const TextLine& line) {
  check_utf8(line);
  auto json = parse_json(std::string(line.text), line.place, kMaxLineBytes);
  if (!json.is_object()) throw Error(fmt::format("{}: expected a JSON object", line.place));
  return json;
}

bool holds_json_lines(const TextFile& file, const std::string& field) {
  return is_named_json(file.path()) || (!field.empty() && begins_with_object(file));
}

void warn_of_json_as_text(Io& io, const std::string& path, const std::string& field) {
  const TextFile file(io, path);
  if (holds_json_lines(file, field) || !begins_with_object(file)) return;
  log_warning(fmt::format(
      "{}: the first line is a JSON object, but the file is read as plain text, with "
      "braces and keys; pass --field KEY, or a name that ends in .jsonl, to read JSON lines",
      path));
}

std::string read_text_file(Io& io, const std::string& path, size_t max_bytes) {
  TextFile file(io, path);
  std::string text;
  for (auto piece = file.next(); !piece.empty(); piece = file.next()) {
    text += piece;
    if (text.size() > max_bytes) {
      throw Error(fmt::format("{}: expected a text of at most {} bytes", path, max_bytes));
    }
  }
  return text;
}

}  // namespace dsmoe
