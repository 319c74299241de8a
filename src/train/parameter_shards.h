#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distributed/rank_group.h"
#include "distributed/shard_layout.h"
#include "model/transformer.h"
#include "train/optimizer.h"
#include "train/train_config.h"

namespace torch::autograd {
struct Node;
}

namespace dsmoe {

/// Sharded data parallelism: each rank keeps its shard of the master weights and of the gradients;
/// products read whole working weights in the compute dtype (arXiv:1910.02054, section 5).
///
/// A group is a block, or all parameters outside the blocks. Matrices that products alone read are
/// narrow: the model's parameters become working weights in the compute dtype. Embeddings, head,
/// norms, biases and routers stay whole in the type of the masters. Gradients are sums over
/// micro-batches and ranks: the losses are shares of the step's.
class ParameterShards {
 public:
  /// Takes this rank's shard of the model's values, which are float32 (float64 for references), and
  /// makes the parameters views of working weights, which gather() fills. No collective.
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

  /// Names the first of this rank's parameters whose gradient shard holds a NaN or Inf.
  std::optional<std::string> first_non_finite_gradient() const;

  /// Zeros of the names and shapes of all masters, and of the state of an optimizer of whole
  /// parameters, on the CPU.
  NamedTensors empty_masters() const;
  NamedTensors empty_state() const;

  /// The whole masters, and the state as of whole parameters, on rank 0; empty on the others.
  /// Collectives.
  NamedTensors whole_masters();
  NamedTensors whole_state(const Optimizer& optimizer);

  /// Gives every rank its part of rank 0's whole tensors, which have the order of empty_masters and
  /// empty_state; those of other ranks are not read. Collectives.
  void assign_masters(const NamedTensors& whole);
  void assign_state(Optimizer& optimizer, const NamedTensors& whole);

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
  std::vector<at::Tensor> gather_whole(const std::vector<at::Tensor>& shards, const char* what);
  at::Tensor send_whole(size_t parameter, const at::Tensor& whole, const std::string& what);

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

/// The shards of a run over several ranks; null where every rank keeps whole parameters.
std::unique_ptr<ParameterShards> make_shards(const Transformer& model,
                                             const RunConfig& config,
                                             RankGroup& ranks);

/// The optimizer of a run: over the shards' pieces, or over the model's parameters where shards is
/// null.
Optimizer make_optimizer(const Transformer& model,
                         const ParameterShards* shards,
                         const RunConfig& config,
                         const RankGroup& ranks);

}  // namespace dsmoe
