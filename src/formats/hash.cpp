#include "formats/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace dsmoe {
namespace {

std::string hex(XXH64_hash_t hash) { return fmt::format("{:016x}", hash); }
std::string hex(XXH128_hash_t hash) { return hex(hash.high64) + hex(hash.low64); }

}  // namespace

struct StreamHash::State {
  State() : narrow(XXH3_createState()), wide(XXH3_createState()) {
    if (narrow == nullptr || wide == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(narrow);
    XXH3_128bits_reset(wide);
  }
  ~State() {
    XXH3_freeState(narrow);
    XXH3_freeState(wide);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  XXH3_state_t* narrow;
  XXH3_state_t* wide;
};

std::string hash64(std::string_view bytes) { return hex(XXH3_64bits(bytes.data(), bytes.size())); }

std::string hash128(std::string_view bytes) {
  return hex(XXH3_128bits(bytes.data(), bytes.size()));
}

StreamHash::StreamHash() : state_(std::make_unique<State>()) {}
StreamHash::~StreamHash() = default;

void StreamHash::add(const void* data, size_t size_bytes) {
  XXH3_64bits_update(state_->narrow, data, size_bytes);
  XXH3_128bits_update(state_->wide, data, size_bytes);
}

std::string StreamHash::hash64() const { return hex(XXH3_64bits_digest(state_->narrow)); }
std::string StreamHash::hash128() const { return hex(XXH3_128bits_digest(state_->wide)); }

}  // namespace dsmoe
