#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsmoe {

/// Content of the `.idx` file of a Megatron pair: describes its `.bin` file of token ids.
struct MegatronIndex {
  int bytes_per_token = 4;               ///< 2: unsigned 16-bit ids, 4: signed 32-bit ids
  int64_t n_tokens = 0;                  ///< of the `.bin` file
  std::vector<int64_t> document_starts;  ///< token positions, rising; empty documents left out
};

/// Reads version 1: magic `MMIDIDX\0\0`, version 8, type 1 (8: uint16, 4: int32), n_sequences 8,
/// n_document_indices 8, then sequence lengths 4 each, byte offsets 8 each, and the sequence at
/// which each document begins 8 each, ended by n_sequences; sequence modes after that are ignored.
///
/// Throws Error naming source_name: another magic, version or type, counts beyond the bytes, a
/// length below 0, sequences that do not follow one another without gaps, documents that do not
/// rise from 0 to n_sequences.
MegatronIndex parse_megatron_index(std::string_view bytes, const std::string& source_name);

}  // namespace dsmoe
