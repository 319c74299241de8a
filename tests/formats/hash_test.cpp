#include "formats/hash.h"

#include <catch2/catch.hpp>

namespace dsmoe {

TEST_CASE("hashes are XXH3 of the published test vectors") {
  // Empty input, from the xxHash specification's reference (xxhsum -H3 and -H2 of an empty file).
  CHECK(hash64("") == "2d06800538d394c2");
  CHECK(hash128("") == "99aa06d3014798d86001c324468d497f");
}

TEST_CASE("a stream hash does not depend on the division of the bytes") {
  const std::string text(1000, 'x');
  StreamHash whole;
  whole.add(text);
  StreamHash parts;
  for (size_t begin = 0; begin < text.size(); begin += 7) {
    parts.add(std::string_view(text).substr(begin, 7));
  }
  CHECK(parts.hash64() == whole.hash64());
  CHECK(parts.hash128() == whole.hash128());
  CHECK(whole.hash64() == hash64(text));
  CHECK(whole.hash128() == hash128(text));
  parts.add("x");
  CHECK(parts.hash64() != whole.hash64());
}

}  // namespace dsmoe
