#include "formats/llama2c.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr uint64_t kHeaderBytes = 7 * sizeof(int32_t);

Llama2cHeader parse_header(const std::array<int32_t, 7>& raw, const std::string& path) {
  Llama2cHeader header{.d_model = raw[0],
                       .d_ffn = raw[1],
                       .n_layers = raw[2],
                       .n_heads = raw[3],
                       .n_kv_heads = raw[4],
                       .vocab_size = raw[5] < 0 ? -int64_t{raw[5]} : raw[5],
                       .max_seq_len = raw[6],
                       .tied = raw[5] > 0};
  for (const int64_t size : {header.d_model,
                             header.d_ffn,
                             header.n_layers,
                             header.n_heads,
                             header.n_kv_heads,
                             header.vocab_size,
                             header.max_seq_len}) {
    if (size < 1 || size > kMaxSize) {
      throw Error(fmt::format("{}: expected a llama2.c header of version 0, got sizes [{}]",
                              path,
                              fmt::join(raw, ", ")));
    }
  }
  if (header.n_layers > kMaxLayers || header.d_model % header.n_heads != 0 ||
      header.n_heads % header.n_kv_heads != 0 || header.head_dim() % 2 != 0) {
    throw Error(fmt::format("{}: layers or heads of [{}] do not fit", path, fmt::join(raw, ", ")));
  }
  return header;
}

// Returns the bytes of a whole file; called before any list is allocated, as a wrong header could
// ask for a long one.
uint64_t file_bytes(const Llama2cHeader& h) {
  using Wide = unsigned __int128;  // 4,096 layers of matrices of 2^48 leave 64 bits
  const auto wide = [](int64_t a, int64_t b) {
    return static_cast<Wide>(a) * static_cast<Wide>(b);
  };
  const int64_t d_kv = h.n_kv_heads * h.head_dim();
  const Wide layer = wide(2, h.d_model) + wide(2 * h.d_model, h.d_model) +
                     wide(2 * d_kv, h.d_model) + wide(3 * h.d_ffn, h.d_model);
  const Wide floats = wide(h.tied ? h.vocab_size : 2 * h.vocab_size, h.d_model) +
                      static_cast<Wide>(h.n_layers) * layer + wide(1, h.d_model) +
                      wide(h.max_seq_len, h.head_dim());
  const Wide bytes = kHeaderBytes + floats * sizeof(float);
  return static_cast<uint64_t>(std::min<Wide>(bytes, std::numeric_limits<int64_t>::max()));
}

// Lays tensors out one after the other; all layers of a kind lie together.
class Layout {
 public:
  explicit Layout(std::vector<TensorEntry>& tensors) : tensors_(tensors) {}

  void add(const std::string& name, std::vector<int64_t> shape) {
    const uint64_t begin = next_;
    next_ += bytes(shape);
    tensors_.push_back({name, "F32", std::move(shape), begin, next_});
  }
  void add_layers(int64_t n_layers, const std::string& name, const std::vector<int64_t>& shape) {
    for (int64_t i = 0; i < n_layers; ++i) add(fmt::format("model.layers.{}.{}", i, name), shape);
  }
  void skip(const std::vector<int64_t>& shape) { next_ += bytes(shape); }

 private:
  static uint64_t bytes(const std::vector<int64_t>& shape) {
    uint64_t size = sizeof(float);
    for (const int64_t length : shape) size *= static_cast<uint64_t>(length);
    return size;
  }
  std::vector<TensorEntry>& tensors_;
  uint64_t next_ = kHeaderBytes;
};

// rotary_begin: where the rotary tables begin.
std::vector<TensorEntry> lay_out(const Llama2cHeader& h, uint64_t& rotary_begin) {
  const int64_t d_kv = h.n_kv_heads * h.head_dim();
  std::vector<TensorEntry> tensors;
  Layout layout(tensors);
  layout.add("model.embed_tokens.weight", {h.vocab_size, h.d_model});
  layout.add_layers(h.n_layers, "input_layernorm.weight", {h.d_model});
  layout.add_layers(h.n_layers, "self_attn.q_proj.weight", {h.d_model, h.d_model});
  layout.add_layers(h.n_layers, "self_attn.k_proj.weight", {d_kv, h.d_model});
  layout.add_layers(h.n_layers, "self_attn.v_proj.weight", {d_kv, h.d_model});
  layout.add_layers(h.n_layers, "self_attn.o_proj.weight", {h.d_model, h.d_model});
  layout.add_layers(h.n_layers, "post_attention_layernorm.weight", {h.d_model});
  layout.add_layers(h.n_layers, "mlp.gate_proj.weight", {h.d_ffn, h.d_model});
  layout.add_layers(h.n_layers, "mlp.down_proj.weight", {h.d_model, h.d_ffn});
  layout.add_layers(h.n_layers, "mlp.up_proj.weight", {h.d_ffn, h.d_model});
  layout.add("model.norm.weight", {h.d_model});
  rotary_begin = tensors.back().end;
  layout.skip({2, h.max_seq_len, h.head_dim() / 2});
  if (!h.tied) layout.add("lm_head.weight", {h.vocab_size, h.d_model});
  return tensors;
}

}  // namespace

Llama2cFile::Llama2cFile(Io& io, const std::string& path)
    : io_(io), path_(path), fd_(io.open(path, O_RDONLY | O_CLOEXEC, 0)) {
  if (fd_ < 0) throw Error(fmt::format("{}: cannot be opened: {}", path, strerror(errno)));
  try {
    read_header();
  } catch (...) {
    io.close(fd_);
    throw;
  }
}

Llama2cFile::~Llama2cFile() { io_.close(fd_); }

void Llama2cFile::read_header() {
  struct stat info = {};
  if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Error(fmt::format("{}: expected a regular file", path_));
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  std::array<int32_t, 7> raw{};
  if (size < kHeaderBytes) {
    throw Error(fmt::format("{}: expected a llama2.c header, got {} bytes", path_, size));
  }
  read_all(io_, fd_, raw.data(), kHeaderBytes, 0, path_);
  header_ = parse_header(raw, path_);
  const uint64_t expected = file_bytes(header_);
  if (expected != size) {
    throw Error(fmt::format(
        "{}: expected {} bytes of a model of that header, got {}", path_, expected, size));
  }
  tensors_ = lay_out(header_, rotary_begin_);
}

std::optional<double> Llama2cFile::rotary_theta() const {
  const auto half = static_cast<size_t>(header_.head_dim() / 2);
  if (header_.max_seq_len < 2 || half < 2) return std::nullopt;
  // The sines of position 1 are sin(theta^(-i / half)) for i from 0; the smallest angle is the most
  // exact.
  std::vector<float> sines(half);
  const uint64_t row = half * sizeof(float);
  const uint64_t begin = rotary_begin_ + (static_cast<uint64_t>(header_.max_seq_len) + 1) * row;
  read_all(io_, fd_, sines.data(), row, begin, path_);
  const double angle = std::asin(static_cast<double>(sines.back()));
  const double theta = std::pow(angle, -static_cast<double>(half) / static_cast<double>(half - 1));
  if (!(angle > 0 && theta > 1 && theta < 1e12)) return std::nullopt;
  for (size_t i = 0; i < half; ++i) {
    const double expected =
        std::sin(std::pow(theta, -static_cast<double>(i) / static_cast<double>(half)));
    if (!(std::abs(sines[i] - expected) < 1e-4)) return std::nullopt;
  }
  return std::stod(fmt::format("{:.5g}", theta));
}

void Llama2cFile::read(const TensorEntry& entry, void* data) const {
  read_all(io_, fd_, data, entry.end - entry.begin, entry.begin, path_);
}

}  // namespace dsmoe
