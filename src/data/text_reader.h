#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace dsmoe {

/// Where a byte sequence stops being UTF-8: the offset of the first bad byte, or npos.
size_t find_invalid_utf8(std::string_view text);

/// Calls `document` for each document of a file: a `.jsonl` file has one object with the key `text`
/// per line; any other file is plain text, cut at `<|endoftext|>` (empty pieces are skipped, the
/// bytes of the others are kept as they are).
/// Throws Error naming file and line or byte offset: missing or empty file, not UTF-8, not JSON, no
/// text key.
void read_documents(const std::string& path,
                    const std::function<void(std::string_view text)>& document);

}  // namespace dsmoe
