#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/io.h"
#include "formats/compressed_file.h"

namespace dsmoe {

/// A text file, read once from its start in pieces of up to a megabyte: plain, gzip or zstd,
/// without the byte order mark of UTF-8 that it may begin with.
class TextFile {
 public:
  /// Throws Error for a file that is missing or not a regular one, and for UTF-16.
  TextFile(Io& io, const std::string& path);

  /// Returns the next piece; empty at the end. Valid until the next call.
  std::string_view next();

  /// Returns the first piece; only before the first call of next().
  std::string_view beginning() const { return piece_; }
  const std::string& path() const { return path_; }
  uint64_t mark_bytes() const { return mark_bytes_; }  ///< of the byte order mark; 0: none
  uint64_t file_position() const { return file_.file_position(); }
  uint64_t file_bytes() const { return file_.file_bytes(); }

 private:
  void fill();

  std::string path_;
  CompressedFile file_;
  std::vector<char> buffer_;
  std::string_view piece_;
  uint64_t mark_bytes_ = 0;
  bool is_begun_ = false;
};

/// A line that is not blank, without its end (LF or CR LF).
struct TextLine {
  std::string_view text;
  std::string place;  ///< `path:number`, lines counted from 1, blank ones included
};

/// Calls `on_line` for every line that is not blank. Throws Error for a line above a gigabyte.
void read_lines(TextFile& file, const std::function<void(const TextLine&)>& on_line);

/// The same for a file of one JSON object a line. Throws Error, with a command that makes such
/// lines, for a file that is one JSON array or one object over several lines.
void read_json_lines(TextFile& file, const std::function<void(const TextLine&)>& on_line);

/// Throws Error naming the place of a line that is not UTF-8.
void check_utf8(const TextLine& line);

/// Parses the object of one line. Throws Error naming its place: not UTF-8, not JSON, no object.
nlohmann::json parse_json_line(const TextLine& line);

/// Returns whether a file is read as JSON lines: its name ends in `.jsonl`, `.ndjson` or `.json`,
/// in any case, also before `.gz`, `.zst` or `.zstd`; or `field` names a key and the first line is
/// an object.
bool holds_json_lines(const TextFile& file, const std::string& field);

/// Logs a warning if a file whose first line is a JSON object is read as plain text.
void warn_of_json_as_text(Io& io, const std::string& path, const std::string& field);

/// Returns a whole text file, decompressed, without a byte order mark. Throws Error above
/// max_bytes.
std::string read_text_file(Io& io, const std::string& path, size_t max_bytes);

}  // namespace dsmoe
