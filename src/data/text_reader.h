#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/io.h"

namespace dsmoe {

/// Rules for cutting a file into documents.
struct TextFormat {
  std::string field = {};                   ///< JSON lines: the key of the text; empty: "text"
  std::string separator = "<|endoftext|>";  ///< plain text: separates documents; empty: none
};

/// A part of a document: whole characters, in order. The parts from a first to a last form a
/// document.
struct TextPart {
  std::string_view text;
  bool is_first = false;
  bool is_last = false;
  uint64_t file_position = 0;  ///< bytes of the file read so far
};

/// Reads a file's documents in parts of about a megabyte, so that memory does not grow with the
/// file; a line of JSON is held as a whole. The file may be gzip or zstd.
///
/// A file that holds_json_lines has one object per line; its text under `format.field` is a
/// document, blank lines are skipped. Any other file is plain text cut at the separator; a
/// separator that fills a line takes that line's end (LF or CR LF) with it, and a byte order mark
/// at the start of the file is no text; all other bytes, CR LF among them, are kept. Empty
/// documents are skipped.
/// Throws Error naming file and line or byte offset: missing, empty or damaged file, not UTF-8, not
/// JSON, no such key, no document, one JSON array or object instead of lines.
void read_text_parts(Io& io,
                     const std::string& path,
                     const TextFormat& format,
                     const std::function<void(const TextPart&)>& on_part);

/// The same, whole documents.
void read_documents(const std::string& path,
                    const std::function<void(std::string_view text)>& on_document,
                    const TextFormat& format = {});

}  // namespace dsmoe
