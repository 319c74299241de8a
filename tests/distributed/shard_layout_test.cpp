#include "distributed/shard_layout.h"

#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"

namespace dsmoe {
namespace {

const std::vector<ShardedParameter> kOdd = {{"embedding", 257 * 12, 0, false},
                                            {"norm", 12, 1, false},
                                            {"up", 60 * 12, 1, true},
                                            {"down", 12 * 60, 1, true},
                                            {"bias", 1, 1, false},
                                            {"router", 48, 2, false}};

}  // namespace

TEST_CASE("ShardLayout: two parameters in two shards, worked by hand", "[distributed]") {
  const ShardLayout layout({{"a", 100, 0, true}, {"b", 70, 0, true}, {"n", 5, 0, false}}, 1, 2);
  // a at 0, b at 128, end 256: two shards of 128; one wide shard of 64.
  CHECK(layout.flat_begin(1) == 128);
  CHECK(layout.groups()[0].narrow == 128);
  CHECK(layout.groups()[0].wide == 64);
  const auto second = layout.pieces_in(1);
  REQUIRE(second.size() == 1);
  CHECK(second[0].parameter == 1);
  CHECK(second[0].offset == 0);
  const auto wide = layout.pieces_of(2);
  REQUIRE(wide.size() == 1);
  CHECK(wide[0].offset == 128);
}

TEST_CASE("ShardLayout: pieces tile every parameter once without overlap", "[distributed]") {
  const int64_t n_shards = GENERATE(1, 2, 3, 4, 7, 1024);
  const ShardLayout layout(kOdd, 3, n_shards);
  std::map<std::pair<int64_t, int64_t>, std::vector<bool>> used;  // by shard and group
  for (size_t i = 0; i < kOdd.size(); ++i) {
    int64_t next = 0;
    CHECK(layout.flat_begin(i) % 64 == 0);
    const auto& group = layout.groups()[static_cast<size_t>(kOdd[i].group)];
    for (const auto& piece : layout.pieces_of(i)) {
      CHECK(piece.begin == next);
      next += piece.n_elements;
      REQUIRE(piece.shard < n_shards);
      auto& taken = used[{piece.shard, kOdd[i].group}];
      taken.resize(static_cast<size_t>(group.n_elements()));
      const bool is_narrow = piece.offset < group.narrow;
      CHECK(is_narrow == kOdd[i].is_narrow);
      REQUIRE(piece.offset + piece.n_elements <= (is_narrow ? group.narrow : group.n_elements()));
      for (int64_t k = 0; k < piece.n_elements; ++k) {
        auto place = taken.begin() + piece.offset + k;
        REQUIRE(!*place);
        *place = true;
      }
    }
    CHECK(next == kOdd[i].n_elements);
  }
  size_t n_pieces = 0;
  for (int64_t shard = 0; shard < n_shards; ++shard) n_pieces += layout.pieces_in(shard).size();
  size_t n_expected = 0;
  for (size_t i = 0; i < kOdd.size(); ++i) n_expected += layout.pieces_of(i).size();
  CHECK(n_pieces == n_expected);
}

TEST_CASE("ShardLayout: a group out of range and no shard are refused", "[distributed]") {
  CHECK_THROWS_WITH(ShardLayout({{"a", 1, 2, true}}, 2, 1), Catch::Contains("'a'"));
  CHECK_THROWS_AS(ShardLayout({}, 1, 0), Error);
}

}  // namespace dsmoe
