#include "formats/megatron_index.h"

#include <fmt/format.h>

#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr std::string_view kMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kVersion = 1;
constexpr uint64_t kInt32 = 4;
constexpr uint64_t kUint16 = 8;
constexpr int64_t kMaxTokens = int64_t{1} << 56;

// Takes little-endian numbers off the front of the bytes.
class Fields {
 public:
  Fields(std::string_view rest, const std::string& source_name)
      : rest_(rest), source_name_(source_name) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}: {}", source_name_, what));
  }
  std::string_view take(uint64_t size, const char* what) {
    if (size > rest_.size()) {
      fail(fmt::format("expected {} bytes of {}, got {}", size, what, rest_.size()));
    }
    const auto taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  // A table of `count` numbers.
  std::string_view take_table(uint64_t count, uint64_t width, const char* what) {
    if (count > rest_.size() / width) {
      fail(fmt::format("expected {} {}, got {} bytes", count, what, rest_.size()));
    }
    return take(count * width, what);
  }
  uint64_t number(size_t width, const char* what) { return at(take(width, what), 0, width); }

  static uint64_t at(std::string_view table, uint64_t index, size_t width) {
    uint64_t value = 0;
    for (size_t i = width; i-- > 0;) {
      value = value << 8 | static_cast<unsigned char>(table[index * width + i]);
    }
    return value;
  }

 private:
  std::string_view rest_;
  const std::string& source_name_;
};

// Checks that sequences lie one after another; returns where each begins, in tokens, and the end.
std::vector<int64_t> sequence_begins(const Fields& fields,
                                     std::string_view lengths,
                                     std::string_view offsets,
                                     uint64_t bytes_per_token) {
  std::vector<int64_t> begins{0};
  begins.reserve(lengths.size() / 4 + 1);
  for (uint64_t i = 0; i < lengths.size() / 4; ++i) {
    const uint64_t length = Fields::at(lengths, i, 4);
    const int64_t begin = begins.back();
    if (length > std::numeric_limits<int32_t>::max() || begin > kMaxTokens) {
      fields.fail(fmt::format("sequence {}: expected a length of 0 to 2^31 - 1 tokens", i));
    }
    const uint64_t expected = static_cast<uint64_t>(begin) * bytes_per_token;
    if (const uint64_t offset = Fields::at(offsets, i, 8); offset != expected) {
      fields.fail(fmt::format("sequence {}: expected byte {}, right after the one before, got {}",
                              i,
                              expected,
                              offset));
    }
    begins.push_back(begin + static_cast<int64_t>(length));
  }
  return begins;
}

}  // namespace

MegatronIndex parse_megatron_index(std::string_view bytes, const std::string& source_name) {
  Fields fields(bytes, source_name);
  if (bytes.size() < kMagic.size() || fields.take(kMagic.size(), "magic") != kMagic) {
    fields.fail("expected a Megatron index (magic MMIDIDX)");
  }
  if (const uint64_t version = fields.number(8, "version"); version != kVersion) {
    fields.fail(fmt::format("expected version {}, got {}", kVersion, version));
  }
  const uint64_t type = fields.number(1, "token type");
  if (type != kInt32 && type != kUint16) {
    fields.fail(fmt::format(
        "expected token type {} (int32) or {} (uint16), got {}", kInt32, kUint16, type));
  }
  MegatronIndex index;
  index.bytes_per_token = type == kUint16 ? 2 : 4;
  const uint64_t n_sequences = fields.number(8, "sequence count");
  const uint64_t n_indices = fields.number(8, "document count");
  const auto lengths = fields.take_table(n_sequences, 4, "sequence lengths");
  const auto offsets = fields.take_table(n_sequences, 8, "sequence offsets");
  const auto documents = fields.take_table(n_indices, 8, "document indices");

  const auto begins =
      sequence_begins(fields, lengths, offsets, static_cast<uint64_t>(index.bytes_per_token));
  index.n_tokens = begins.back();
  uint64_t previous = 0;
  for (uint64_t i = 0; i < n_indices; ++i) {
    const uint64_t sequence = Fields::at(documents, i, 8);
    if (sequence < previous || sequence > n_sequences || (i == 0 && sequence != 0)) {
      fields.fail(
          fmt::format("document {}: expected its first sequence to rise from 0 to {}, got {}",
                      i,
                      n_sequences,
                      sequence));
    }
    previous = sequence;
    const int64_t start = begins[sequence];
    const bool follows = index.document_starts.empty() || index.document_starts.back() < start;
    if (start < index.n_tokens && follows) index.document_starts.push_back(start);
  }
  if (n_indices == 0 || previous != n_sequences) {
    fields.fail(fmt::format("expected the document indices to end with {}", n_sequences));
  }
  return index;
}

}  // namespace dsmoe
