#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"

/// Arithmetic of the kernels' inner loops, written so that the compiler vectorises it. Only files
/// that are compiled per instruction set include it: the inline namespace keeps their code apart.
namespace dsmoe {
inline namespace DSMOE_ISA {

/// The type of arithmetic on a stored type.
template <typename T>
struct WideOf {
  using Type = float;
};
template <>
struct WideOf<double> {
  using Type = double;
};
template <typename T>
using Wide = typename WideOf<T>::Type;

inline float load(const Bfloat16& x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}
inline float load(const float& x) { return x; }
inline double load(const double& x) { return x; }

// Rounds to nearest, ties to even; a NaN stays a NaN.
inline void store(Bfloat16& to, float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
  to.bits = static_cast<uint16_t>((is_nan ? bits | 0x400000U : rounded) >> 16);
}
inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }

/// exp within 2 units in the last place for float32; clamped to the range of normal numbers.
inline float exp_of(float x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts so that r is exact.
  x = x < -87.3F ? -87.3F : x;
  x = x > 88.3F ? 88.3F : x;
  const float n = __builtin_rintf(x * 1.44269504F);
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const auto scale = static_cast<uint32_t>((static_cast<int32_t>(n) + 127) << 23);
  return p * __builtin_bit_cast(float, scale);
}
inline double exp_of(double x) { return __builtin_exp(x); }

template <typename W>
inline W sigmoid(W x) {
  return W(1) / (W(1) + exp_of(-x));
}

/// tanh(x) = 2 sigmoid(2 x) - 1: within 2e-7 absolute for float32.
template <typename W>
inline W tanh_of(W x) {
  return W(2) * sigmoid(W(2) * x) - W(1);
}

/// erf within 2e-7 absolute for float32. Source: Abramowitz and Stegun, formula 7.1.26.
inline float erf_of(float x) {
  const float magnitude = __builtin_fabsf(x);
  const float t = 1.0F / (1.0F + 0.3275911F * magnitude);
  float p = 1.061405429F;
  p = p * t - 1.453152027F;
  p = p * t + 1.421413741F;
  p = p * t - 0.284496736F;
  p = p * t + 0.254829592F;
  return __builtin_copysignf(1.0F - p * t * exp_of(-magnitude * magnitude), x);
}
inline double erf_of(double x) { return __builtin_erf(x); }

}  // namespace DSMOE_ISA
}  // namespace dsmoe
