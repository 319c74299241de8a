#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "formats/tensor_source.h"

namespace dsmoe {

/// The seven numbers that a llama2.c file begins with.
struct Llama2cHeader {
  int64_t d_model = 0;
  int64_t d_ffn = 0;
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t vocab_size = 0;
  int64_t max_seq_len = 0;
  bool tied = true;  // in the file: a negative vocab_size means false
  int64_t head_dim() const { return d_model / n_heads; }
};

/// A llama2.c checkpoint of format version 0: float32, little-endian. Tensors carry the names of
/// Hugging Face's LLaMA; rotary pairs are neighbours (2 i, 2 i + 1) of a head's rows.
class Llama2cFile final : public TensorSource {
 public:
  /// Throws Error naming the path for another header, or if the file's size differs from the
  /// header's; reads only the header before that check.
  Llama2cFile(Io& io, const std::string& path);
  ~Llama2cFile() override;
  Llama2cFile(const Llama2cFile&) = delete;
  Llama2cFile& operator=(const Llama2cFile&) = delete;

  const Llama2cHeader& header() const { return header_; }
  const std::vector<TensorEntry>& tensors() const override { return tensors_; }
  void read(const TensorEntry& entry, void* data) const override;

  /// Returns the base of the rotary frequencies, found from the sines in the file, to 5 digits;
  /// empty if they do not determine it: contexts of 1, heads of 2, zeros or other numbers.
  std::optional<double> rotary_theta() const;

 private:
  void read_header();

  Io& io_;
  std::string path_;
  int fd_ = -1;
  Llama2cHeader header_;
  std::vector<TensorEntry> tensors_;
  uint64_t rotary_begin_ = 0;  // of the cosines of every position, then the sines
};

}  // namespace dsmoe
