#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dsmoe {

/// A parameter to lay out.
struct ShardedParameter {
  std::string name;
  int64_t n_elements = 0;
  int64_t group = 0;       ///< from 0; a group is gathered and reduced as one
  bool is_narrow = false;  ///< in the flat of the compute dtype, else in the wide one
};

/// Elements of one shard of a group's two flats.
struct GroupShard {
  int64_t narrow = 0;
  int64_t wide = 0;
  int64_t n_elements() const { return narrow + wide; }
};

/// A run of one parameter's elements in one shard.
struct ShardPiece {
  size_t parameter = 0;  ///< index in the module's order
  int64_t shard = 0;     ///< index of the shard
  int64_t begin = 0;     ///< first element in the parameter
  int64_t n_elements = 0;
  int64_t offset = 0;  ///< in the group's shard: the narrow elements, then the wide ones
};

/// Places of parameters in equal shards. Each group has a narrow and a wide flat with its parameters
/// in the given order, each beginning at a multiple of 64 elements; the flat's end is padded to
/// equal shards of a multiple of 64 elements. A function of its arguments only: never saved.
class ShardLayout {
 public:
  /// Throws Error for a group outside [0, n_groups) and for no shard.
  ShardLayout(std::vector<ShardedParameter> parameters, int64_t n_groups, int64_t n_shards);

  int64_t n_shards() const { return n_shards_; }
  const std::vector<ShardedParameter>& parameters() const { return parameters_; }
  const std::vector<GroupShard>& groups() const { return groups_; }
  /// First element of a parameter in its flat.
  int64_t flat_begin(size_t parameter) const { return flat_begin_.at(parameter); }
  /// The parameter's elements shard by shard, in order.
  std::vector<ShardPiece> pieces_of(size_t parameter) const;
  /// Every piece of a shard, by parameter.
  std::vector<ShardPiece> pieces_in(int64_t shard) const;

 private:
  std::vector<ShardedParameter> parameters_;
  int64_t n_shards_;
  std::vector<GroupShard> groups_;
  std::vector<int64_t> flat_begin_;
};

}  // namespace dsmoe
