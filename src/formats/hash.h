#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace dsmoe {

/// XXH3-64 of bytes, 16 hex digits. It detects accidents, not attacks.
std::string hash64(std::string_view bytes);
/// XXH3-128, 32 hex digits.
std::string hash128(std::string_view bytes);

/// XXH3-64 and XXH3-128 of a byte stream that arrives in parts.
class StreamHash {
 public:
  StreamHash();
  ~StreamHash();
  StreamHash(const StreamHash&) = delete;
  StreamHash& operator=(const StreamHash&) = delete;

  void add(const void* data, size_t size_bytes);
  void add(std::string_view bytes) { add(bytes.data(), bytes.size()); }
  std::string hash64() const;
  std::string hash128() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsmoe
