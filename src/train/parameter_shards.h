#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distributed/rank_group.h"
#include "distributed/shard_layout.h"
#include "model/transformer.h"
#include "train/optimizer.h"

namespace torch::autograd {
struct Node;
}

namespace dsmoe {

/// What a rank keeps of the gradients between micro-batches.
enum class ShardLevel {
  kOptimizer,  ///< ZeRO-1: whole float32 sums, reduced in the last micro-batch
  kGradients,  ///< ZeRO-2: its shard, reduced in every micro-batch
};

/// Sharded data parallelism: each rank keeps its shard of the master weights and of the gradients;
/// products read whole working weights in the compute dtype (arXiv:1910.02054, section 5).
///
/// A group is a block, or all parameters outside the blocks. Matrices that products alone read are
/// narrow: the model's parameters become working weights in the compute dtype. Embeddings, head,
/// norms, biases and routers stay whole in the type of the masters. Gradients are sums over
/// micro-batches and ranks: the losses are shares of the step's.
class ParameterShards {
 public:
  /// Takes this rank's shard of the model's values, which are float32 (float64 for references), then
  /// makes the parameters views of working weights and fills these from all ranks.
  ParameterShards(Transformer model,
                  RankGroup& ranks,
                  at::ScalarType compute_dtype,
                  ShardLevel level);
  ~ParameterShards();
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  const ShardLayout& layout() const { return layout_; }

  /// This rank's runs of master weights for an Optimizer; they get their gradients in the last
  /// micro-batch of a step.
  std::vector<OptimizedPiece> pieces() const;

  /// Calls loss.backward(). Blocks are reduced while the backward pass runs, in descending order.
  /// Throws RunError naming the parameter if one got no gradient.
  void backward(const at::Tensor& loss, bool is_last);

  /// Forgets the gradients of the step.
  void clear_gradients() { n_micro_batches_ = 0; }

  /// Fills the working weights from the masters of all ranks.
  void gather();

 private:
  struct Group {
    at::Tensor master;    // [shard of narrow, shard of wide]
    at::Tensor gradient;  // like master
    at::Tensor narrow;    // whole, compute dtype
    at::Tensor wide;      // whole, type of the masters
    std::vector<size_t> parameters;
    size_t n_arrived = 0;  // gradients of this micro-batch
  };
  // A buffer that one group's gradients are reduced from.
  struct Slot {
    at::Tensor parts;       // [n_shards, elements of a shard] of the largest group, flat
    at::Tensor sum;         // [elements of a shard]
    at::Tensor added_to{};  // gradient shard that gets the sum; undefined: it got it directly
    PendingCollective pending{};
  };

  void make_groups(at::ScalarType compute_dtype);
  void watch_gradients();
  void arrive(size_t parameter);
  void reduce(size_t group);
  void take_gradients(Group& group, const at::Tensor& parts, bool is_first);
  Slot& slot_of(size_t group);
  static void finish(Slot& slot);
  void check_complete() const;

  RankGroup& ranks_;
  ShardLevel level_;
  NamedTensors parameters_;
  ShardLayout layout_;
  std::vector<Group> groups_;
  std::vector<Slot> slots_;
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators_;  // keep the hooks
  std::vector<bool> has_arrived_;                                     // by parameter
  size_t n_unreduced_ = 0;       // groups below it wait for their turn
  int64_t n_micro_batches_ = 0;  // of this step, done
  bool is_last_ = false;
};

}  // namespace dsmoe
