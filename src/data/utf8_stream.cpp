#include "data/tokenizer.h"

namespace dsmoe {
namespace {

// Bytes at the end of `text` that may be the beginning of a character.
size_t unfinished_bytes(const std::string& text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return 0;
    if (byte < 0xC0) continue;  // a continuation: its lead byte stands before
    const size_t length = byte >= 0xF8 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  const size_t keep = unfinished_bytes(pending_);
  std::string complete = pending_.substr(0, pending_.size() - keep);
  pending_.erase(0, complete.size());
  return complete;
}

std::string Utf8Stream::finish() { return std::move(pending_); }

}  // namespace dsmoe
