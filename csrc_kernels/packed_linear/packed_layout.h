#pragma once

#include <cstddef>
#include <cstdint>

namespace dsmoe {

/// Number format of a packed weight.
enum class PackedFormat {
  kFloat32,
  kBfloat16,
  kInt8,  ///< kQuantBlock inputs of one output share a float32 scale; inputs are quantised likewise
};

constexpr int64_t kPanelWidth = 32;   ///< outputs of a panel
constexpr int64_t kQuantBlock = 128;  ///< inputs that share a scale

/// Matrices [d_out, d_in], one per expert, divided into panels of kPanelWidth outputs. Kernels read
/// a panel from end to end. Missing outputs and inputs are zero. Layout of a panel, K d_in:
///   kFloat32   [K][32]
///   kBfloat16  [K / 2][32][2]
///   kInt8      per block of inputs [K / 4][32][4] as value + 128, then 32 float32 scales
struct PackedShape {
  PackedFormat format = PackedFormat::kFloat32;
  int64_t n_experts = 0;
  int64_t d_out = 0;
  int64_t d_in = 0;

  int64_t n_panels() const { return (d_out + kPanelWidth - 1) / kPanelWidth; }
  int64_t panel_bytes() const {
    switch (format) {
      case PackedFormat::kFloat32:
        return d_in * kPanelWidth * 4;
      case PackedFormat::kBfloat16:
        return (d_in + 1) / 2 * kPanelWidth * 4;
      case PackedFormat::kInt8:
        break;
    }
    const int64_t n_blocks = (d_in + kQuantBlock - 1) / kQuantBlock;
    return ((d_in + 3) / 4 + n_blocks) * kPanelWidth * 4;
  }
  int64_t size_bytes() const { return n_experts * n_panels() * panel_bytes(); }
};

/// Bytes of a packed weight.
struct PackedView {
  PackedShape shape;
  const std::byte* data = nullptr;

  const std::byte* panel(int64_t expert, int64_t index) const {
    return data + (expert * shape.n_panels() + index) * shape.panel_bytes();
  }
};

/// Fills one panel from `n_outputs` rows of d_in numbers; the rest of the panel becomes zero.
void pack_panel(const PackedShape& shape, const float* rows, int64_t n_outputs, std::byte* panel);

/// Writes the numbers of a panel to rows [kPanelWidth, d_in].
void unpack_panel(const PackedShape& shape, const std::byte* panel, float* rows);

}  // namespace dsmoe
