#include "distributed/shard_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"

namespace dsmoe {
namespace {

// Kernels read whole vectors: a parameter begins at a multiple of 64 elements.
constexpr int64_t kFlatAlignment = 64;

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

ShardLayout::ShardLayout(std::vector<ShardedParameter> parameters,
                         int64_t n_groups,
                         int64_t n_shards)
    : parameters_(std::move(parameters)), n_shards_(n_shards) {
  if (n_shards < 1) throw Error(fmt::format("ShardLayout: expected shards, got {}", n_shards));
  groups_.resize(static_cast<size_t>(n_groups));
  for (const auto& parameter : parameters_) {
    if (parameter.group < 0 || parameter.group >= n_groups) {
      throw Error(fmt::format("ShardLayout: '{}': expected a group below {}, got {}",
                              parameter.name,
                              n_groups,
                              parameter.group));
    }
    auto& group = groups_[static_cast<size_t>(parameter.group)];
    auto& end = parameter.is_narrow ? group.narrow : group.wide;  // of the flat so far
    flat_begin_.push_back(end);
    end += round_up(parameter.n_elements, kFlatAlignment);
  }
  for (auto& group : groups_) {
    for (auto* flat : {&group.narrow, &group.wide}) {
      *flat = round_up((*flat + n_shards - 1) / n_shards, kFlatAlignment);
    }
  }
}

std::vector<ShardPiece> ShardLayout::pieces_of(size_t parameter) const {
  const auto& placed = parameters_.at(parameter);
  const auto& group = groups_[static_cast<size_t>(placed.group)];
  const int64_t size = placed.is_narrow ? group.narrow : group.wide;
  const int64_t first = flat_begin_[parameter];
  std::vector<ShardPiece> pieces;
  for (int64_t begin = 0; begin < placed.n_elements;) {
    const int64_t shard = (first + begin) / size;
    const int64_t in_flat = first + begin - shard * size;
    const int64_t n = std::min(placed.n_elements - begin, size - in_flat);
    pieces.push_back({.parameter = parameter,
                      .shard = shard,
                      .begin = begin,
                      .n_elements = n,
                      .offset = in_flat + (placed.is_narrow ? 0 : group.narrow)});
    begin += n;
  }
  return pieces;
}

std::vector<ShardPiece> ShardLayout::pieces_in(int64_t shard) const {
  std::vector<ShardPiece> pieces;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    for (const auto& piece : pieces_of(i)) {
      if (piece.shard == shard) pieces.push_back(piece);
    }
  }
  return pieces;
}

}  // namespace dsmoe
