#include "formats/compressed_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "common/error.h"
#include "common/standard_input.h"

namespace dsmoe {
namespace {

constexpr size_t kInputBytes = 1 << 18;
constexpr std::string_view kGzipMagic = "\x1F\x8B";
constexpr std::string_view kZstdMagic = "\x28\xB5\x2F\xFD";

// Bytes that one call of a decoder consumed and produced.
struct Decoded {
  size_t consumed = 0;
  size_t made = 0;
  bool member_ended = false;  // the input may end here
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Throws Error with the library's reason for damaged input.
  virtual Decoded decode(std::string_view in, char* out, size_t size) = 0;
};

class PlainDecoder final : public Decoder {
 public:
  Decoded decode(std::string_view in, char* out, size_t size) override {
    const size_t n = std::min(in.size(), size);
    std::memcpy(out, in.data(), n);
    return {n, n, true};
  }
};

class GzipDecoder final : public Decoder {
 public:
  GzipDecoder() {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipDecoder() override { inflateEnd(&stream_); }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;

  Decoded decode(std::string_view in, char* out, size_t size) override {
    // zlib's interface has no const; it does not write to its input.
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(std::min<size_t>(size, 1 << 30));
    const uInt capacity = stream_.avail_out;
    const int status = inflate(&stream_, Z_NO_FLUSH);
    const bool ended = status == Z_STREAM_END;
    if (!ended && status != Z_OK && status != Z_BUF_ERROR) {
      throw Error(stream_.msg != nullptr ? stream_.msg : "not gzip");
    }
    const Decoded decoded{in.size() - stream_.avail_in, capacity - stream_.avail_out, ended};
    if (ended) inflateReset(&stream_);
    return decoded;
  }

 private:
  z_stream stream_{};
};

class ZstdDecoder final : public Decoder {
 public:
  ZstdDecoder() : context_(ZSTD_createDCtx(), &ZSTD_freeDCtx) {
    if (context_ == nullptr) throw std::bad_alloc();
  }
  Decoded decode(std::string_view in, char* out, size_t size) override {
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out, size, 0};
    const size_t left = ZSTD_decompressStream(context_.get(), &output, &input);
    if (ZSTD_isError(left) != 0) throw Error(ZSTD_getErrorName(left));
    return {input.pos, output.pos, left == 0};
  }

 private:
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
};

std::unique_ptr<Decoder> decoder_for(std::string_view beginning) {
  if (beginning.starts_with(kGzipMagic)) return std::make_unique<GzipDecoder>();
  if (beginning.starts_with(kZstdMagic)) return std::make_unique<ZstdDecoder>();
  return std::make_unique<PlainDecoder>();
}

}  // namespace

struct CompressedFile::State {
  State(Io& file_io, const std::string& file_path)
      : io(file_io), path(file_path == kStandardInput ? kStandardInputName : file_path) {
    fd = file_path == kStandardInput ? open_standard_input(io) : io.open(path, O_RDONLY, 0);
    if (fd < 0) throw Error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  }
  ~State() { io.close(fd); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void open();
  void refill();

  Io& io;
  std::string path;
  int fd = -1;
  uint64_t file_bytes = 0;
  uint64_t offset = 0;  // of the next byte to read
  std::vector<char> buffer;
  std::string_view input;  // bytes of the buffer that are not yet decoded
  std::unique_ptr<Decoder> decoder;
  bool member_ended = true;
};

void CompressedFile::State::open() {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(fmt::format("{}: expected a regular file", path));
  }
  file_bytes = static_cast<uint64_t>(status.st_size);
  buffer.resize(kInputBytes);
  refill();
  decoder = decoder_for(input);
}

void CompressedFile::State::refill() {
  ssize_t n = -1;
  do {
    n = io.pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(offset));
  } while (n < 0 && errno == EINTR);
  if (n < 0) throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  input = {buffer.data(), static_cast<size_t>(n)};
  offset += static_cast<uint64_t>(n);
}

CompressedFile::CompressedFile(Io& io, const std::string& path)
    : state_(std::make_unique<State>(io, path)) {
  state_->open();
}

CompressedFile::~CompressedFile() = default;

size_t CompressedFile::read(char* out, size_t size) {
  auto& state = *state_;
  while (size > 0) {
    if (state.input.empty()) state.refill();
    const bool at_end = state.input.empty();
    if (at_end && state.member_ended) return 0;
    Decoded decoded;
    try {
      decoded = state.decoder->decode(state.input, out, size);
    } catch (const Error& error) {
      throw Error(
          fmt::format("{}: damaged near byte {}: {}", state.path, file_position(), error.what()));
    }
    state.input.remove_prefix(decoded.consumed);
    // A call that consumes and produces nothing tells nothing about the member.
    if (decoded.consumed + decoded.made > 0) state.member_ended = decoded.member_ended;
    if (decoded.made > 0) return decoded.made;
    if (at_end && !state.member_ended) {
      throw Error(fmt::format("{}: ends early, at byte {}", state.path, state.offset));
    }
  }
  return 0;
}

uint64_t CompressedFile::file_position() const { return state_->offset - state_->input.size(); }
uint64_t CompressedFile::file_bytes() const { return state_->file_bytes; }

}  // namespace dsmoe
