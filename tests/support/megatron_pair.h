#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// Documents of sequences of tokens of a Megatron pair.
using MegatronDocuments = std::vector<std::vector<std::vector<int32_t>>>;

/// The bytes of a pair, written from the format's description.
struct MegatronPair {
  std::string index;
  std::string tokens;
};

inline void append_number(std::string& bytes, uint64_t value, int n_bytes) {
  for (int i = 0; i < n_bytes; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

/// width  2: uint16 (type 8), 4: int32 (type 4)
inline MegatronPair make_megatron_pair(const MegatronDocuments& documents, int width) {
  std::string lengths;
  std::string offsets;
  std::string indices;
  MegatronPair pair;
  uint64_t n_sequences = 0;
  append_number(indices, 0, 8);
  for (const auto& document : documents) {
    for (const auto& sequence : document) {
      append_number(lengths, sequence.size(), 4);
      append_number(offsets, pair.tokens.size(), 8);
      for (const int32_t id : sequence) {
        append_number(pair.tokens, static_cast<uint32_t>(id), width);
      }
      ++n_sequences;
    }
    append_number(indices, n_sequences, 8);
  }
  pair.index = std::string("MMIDIDX\0\0", 9);
  append_number(pair.index, 1, 8);
  append_number(pair.index, width == 2 ? 8 : 4, 1);
  append_number(pair.index, n_sequences, 8);
  append_number(pair.index, documents.size() + 1, 8);
  pair.index += lengths + offsets + indices;
  return pair;
}

inline void write_megatron_pair(const std::string& prefix, const MegatronPair& pair) {
  write_file(posix_io(), prefix + ".idx", pair.index);
  write_file(posix_io(), prefix + ".bin", pair.tokens);
}

}  // namespace dsmoe
