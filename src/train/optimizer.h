#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "csrc_kernels/adamw/adamw.h"
#include "model/named_tensors.h"
#include "train/train_config.h"

namespace dsmoe {

/// One of `count` equal runs of all parameters' elements, in order; the last may be shorter.
struct OptimizerShard {
  int64_t index = 0;
  int64_t count = 1;
};

/// A run of one parameter's elements, of a shard.
struct OptimizedPiece {
  std::string name;     ///< of the parameter
  at::Tensor elements;  ///< [n], updated in place
  at::Tensor gradient;  ///< [n]
  bool decays = false;
  int64_t begin = 0;  ///< first element in the parameter
};

/// AdamW over named parameters, in place. One parallel pass applies update and clipping.
///
/// Matrices decay; biases and 1-D parameters (norm weights) do not. A parameter without a gradient,
/// its moments and its step count stay unchanged. Parameters, gradients and state are float32 (all
/// of them float64 for references), on one device. A shard keeps the moments of its elements and
/// updates these only; share_parameters fetches the other elements.
class Optimizer {
 public:
  /// Throws Error if a name appears twice, c10::Error if a parameter has another type.
  Optimizer(NamedTensors parameters, const OptimizerConfig& config, OptimizerShard shard = {});

  /// Over the pieces of one shard. They always have gradients: the owner fills these before each
  /// step.
  Optimizer(const std::vector<OptimizedPiece>& pieces, const OptimizerConfig& config);

  /// Returns the 2-norm of the gradients that this optimizer has.
  double own_gradient_norm() const;

  /// As prepare_clipping, with a norm that other ranks' gradients are part of.
  void set_clipping(double norm, double max_norm);

  /// Returns the global 2-norm of all gradients. The next step() scales them to a norm of at most
  /// max_norm, unless it is 0; here the gradients stay as they are.
  double prepare_clipping(double max_norm);

  void step(double lr);
  void clear_gradients();

  /// The state tensors themselves, to be saved and to be filled, as `NAME.exp_avg`,
  /// `NAME.exp_avg_sq`, `NAME.step`. Not of a shard; see gather_state.
  NamedTensors named_state() const;

  /// Zeros of the names and shapes of the whole state.
  NamedTensors empty_state() const;

  bool is_sharded() const { return shard_.count > 1; }
  NamedTensors parameters() const;
  NamedTensors steps() const;                      ///< updates so far by parameter, scalars
  at::Tensor moments() const { return moments_; }  ///< [2, elements of the shard]
  int64_t shard_begin() const { return moments_.size(1) * shard_.index; }

 private:
  struct Slot {
    std::string name;
    at::Tensor parameter;
    at::Tensor step;  // scalar, float32
    bool decays;
    int64_t begin;  // of its elements among those of all parameters
  };
  at::Tensor moment_of(const Slot& slot, int64_t which) const;
  AdamwSlot own_part(const Slot& slot) const;

  OptimizerConfig config_;
  OptimizerShard shard_;
  std::vector<Slot> slots_;
  at::Tensor moments_;  // [2, elements of the shard]
  double gradient_scale_ = 1.0;
  bool keeps_gradients_ = false;  // they belong to the owner of the pieces
};

}  // namespace dsmoe
