#include "common/random_seed.h"

namespace dsmoe {

uint64_t mix_bits(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

uint64_t derive_seed(uint64_t seed, std::string_view purpose, uint64_t index) {
  uint64_t state = mix_bits(seed);
  for (const char letter : purpose) state = mix_bits(state ^ static_cast<unsigned char>(letter));
  return mix_bits(mix_bits(state) + index);
}

}  // namespace dsmoe
