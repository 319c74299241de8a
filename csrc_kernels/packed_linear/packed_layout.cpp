#include "csrc_kernels/packed_linear/packed_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dsmoe {
namespace {

// Rows that are padded with zeros.
struct Rows {
  const float* data;
  int64_t n_rows;
  int64_t width;
  float at(int64_t row, int64_t k) const {
    return row < n_rows && k < width ? data[row * width + k] : 0.0F;
  }
};

// Rounds to nearest, ties to even.
uint16_t to_bfloat16(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  if (std::isnan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float from_bfloat16(uint16_t x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16);
}

void pack_int8(const Rows& rows, std::byte* panel) {
  for (int64_t begin = 0; begin < rows.width; begin += kQuantBlock) {
    const int64_t length = std::min(kQuantBlock, rows.width - begin);
    const int64_t padded = (length + 3) / 4 * 4;
    auto* values = reinterpret_cast<uint8_t*>(panel);
    float scales[kPanelWidth];
    for (int64_t row = 0; row < kPanelWidth; ++row) {
      float largest = 0.0F;
      for (int64_t k = 0; k < length; ++k) {
        largest = std::max(largest, std::abs(rows.at(row, begin + k)));
      }
      scales[row] = largest / 127.0F;
      const float inverse = largest > 0.0F ? 127.0F / largest : 0.0F;
      for (int64_t k = 0; k < padded; ++k) {
        const float x = k < length ? rows.at(row, begin + k) * inverse : 0.0F;
        values[(k / 4 * kPanelWidth + row) * 4 + k % 4] =
            static_cast<uint8_t>(std::lrintf(x) + 128);
      }
    }
    std::memcpy(panel + padded * kPanelWidth, scales, sizeof(scales));
    panel += padded * kPanelWidth + static_cast<int64_t>(sizeof(scales));
  }
}

void unpack_int8(int64_t width, const std::byte* panel, float* rows) {
  for (int64_t begin = 0; begin < width; begin += kQuantBlock) {
    const int64_t length = std::min(kQuantBlock, width - begin);
    const int64_t padded = (length + 3) / 4 * 4;
    const auto* values = reinterpret_cast<const uint8_t*>(panel);
    float scales[kPanelWidth];
    std::memcpy(scales, panel + padded * kPanelWidth, sizeof(scales));
    for (int64_t row = 0; row < kPanelWidth; ++row) {
      for (int64_t k = 0; k < length; ++k) {
        const int value = values[(k / 4 * kPanelWidth + row) * 4 + k % 4] - 128;
        rows[row * width + begin + k] = static_cast<float>(value) * scales[row];
      }
    }
    panel += padded * kPanelWidth + static_cast<int64_t>(sizeof(scales));
  }
}

}  // namespace

void pack_panel(const PackedShape& shape, const float* data, int64_t n_outputs, std::byte* panel) {
  const Rows rows{data, n_outputs, shape.d_in};
  if (shape.format == PackedFormat::kInt8) return pack_int8(rows, panel);
  const bool narrow = shape.format == PackedFormat::kBfloat16;
  const int64_t padded = narrow ? (shape.d_in + 1) / 2 * 2 : shape.d_in;
  for (int64_t k = 0; k < padded; ++k) {
    for (int64_t row = 0; row < kPanelWidth; ++row) {
      const float x = rows.at(row, k);
      if (narrow) {
        const uint16_t bits = to_bfloat16(x);
        std::memcpy(panel + (k / 2 * kPanelWidth + row) * 4 + k % 2 * 2, &bits, 2);
      } else {
        std::memcpy(panel + (k * kPanelWidth + row) * 4, &x, 4);
      }
    }
  }
}

void unpack_panel(const PackedShape& shape, const std::byte* panel, float* rows) {
  if (shape.format == PackedFormat::kInt8) return unpack_int8(shape.d_in, panel, rows);
  for (int64_t k = 0; k < shape.d_in; ++k) {
    for (int64_t row = 0; row < kPanelWidth; ++row) {
      float& x = rows[row * shape.d_in + k];
      if (shape.format == PackedFormat::kBfloat16) {
        uint16_t bits = 0;
        std::memcpy(&bits, panel + (k / 2 * kPanelWidth + row) * 4 + k % 2 * 2, 2);
        x = from_bfloat16(bits);
      } else {
        std::memcpy(&x, panel + (k * kPanelWidth + row) * 4, 4);
      }
    }
  }
}

}  // namespace dsmoe
