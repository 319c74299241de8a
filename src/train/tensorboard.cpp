#include "train/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstring>

#include "common/error.h"

namespace dsmoe {
namespace {

template <class Value>
std::string little_endian(Value value) {
  static_assert(std::endian::native == std::endian::little);
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Protocol buffer fields: key = number * 8 + wire type (0 varint, 1 64 bits, 2 bytes, 5 32 bits).
std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string key(int number, int wire_type) {
  return varint(static_cast<uint64_t>(number * 8 + wire_type));
}
std::string bytes_field(int number, const std::string& bytes) {
  return key(number, 2) + varint(bytes.size()) + bytes;
}

std::string number_field(int number, uint64_t value) { return key(number, 0) + varint(value); }
std::string real_field(int number, double value) { return key(number, 1) + little_endian(value); }

// TFRecord masks its checksums, so that a checksum of checksums stays sound.
uint32_t masked_crc(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace

double system_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

uint32_t crc32c(const std::string& bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

TensorboardWriter::TensorboardWriter(Io& io,
                                     const std::string& directory,
                                     int64_t first_step,
                                     WallClock clock)
    : io_(io), clock_(std::move(clock)) {
  make_directories(io, directory);
  path_ = fmt::format("{}/events.out.tfevents.{}.step{}.{}",
                      directory,
                      static_cast<int64_t>(clock_()),
                      first_step,
                      getpid());
  fd_ = io_.open(path_, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode);
  if (fd_ < 0) throw RunError(fmt::format("{}: cannot be written: {}", path_, strerror(errno)));
  write_event(real_field(1, clock_()) + bytes_field(3, "brain.Event:2"));
  // The start of a session: TensorBoard drops what earlier files hold from its step on.
  write_event(real_field(1, clock_()) + number_field(2, static_cast<uint64_t>(first_step + 1)) +
              bytes_field(7, number_field(1, 1)));
}

TensorboardWriter::~TensorboardWriter() {
  if (fd_ >= 0) io_.close(fd_);
}

void TensorboardWriter::add(int64_t step,
                            const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [name, value] : scalars) {
    summary +=
        bytes_field(1, bytes_field(1, name) + key(2, 5) + little_endian(static_cast<float>(value)));
  }
  write_summary(step, summary);
}

// Summary.Value {tag 1, tensor 8, metadata 9}; TensorProto {dtype 1: string, shape 2, string_val 8}.
void TensorboardWriter::add_text(int64_t step,
                                 const std::string& name,
                                 const std::string& markdown) {
  constexpr uint64_t kString = 7;
  const auto shape = bytes_field(2, number_field(1, 1));
  const auto tensor = number_field(1, kString) + bytes_field(2, shape) + bytes_field(8, markdown);
  const auto metadata = bytes_field(1, bytes_field(1, "text"));
  write_summary(step,
                bytes_field(1,
                            bytes_field(1, name + "/text_summary") + bytes_field(8, tensor) +
                                bytes_field(9, metadata)));
}

// HistogramProto {min 1, max 2, num 3, sum 4, sum_squares 5, bucket_limit 6, bucket 7}.
void TensorboardWriter::add_bars(int64_t step,
                                 const std::string& name,
                                 const std::vector<double>& values) {
  std::string limits;
  std::string bars;
  double total = 0;
  double sum = 0;
  double squares = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double middle = static_cast<double>(i) + 0.5;
    limits += little_endian(static_cast<double>(i + 1));
    bars += little_endian(values[i]);
    total += values[i];
    sum += middle * values[i];
    squares += middle * middle * values[i];
  }
  const auto histogram = real_field(1, 0) + real_field(2, static_cast<double>(values.size())) +
                         real_field(3, total) + real_field(4, sum) + real_field(5, squares) +
                         bytes_field(6, limits) + bytes_field(7, bars);
  write_summary(step, bytes_field(1, bytes_field(1, name) + bytes_field(5, histogram)));
}

void TensorboardWriter::write_summary(int64_t step, const std::string& summary) {
  write_event(real_field(1, clock_()) + number_field(2, static_cast<uint64_t>(step)) +
              bytes_field(5, summary));
}

void TensorboardWriter::write_event(const std::string& event) {
  const auto length = little_endian(static_cast<uint64_t>(event.size()));
  const auto record =
      length + little_endian(masked_crc(length)) + event + little_endian(masked_crc(event));
  write_all(io_, fd_, record.data(), record.size(), path_);
}

}  // namespace dsmoe
