#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distributed/rank_group.h"

namespace c10d {
class Reducer;
}

namespace dsmoe {

struct GradientReducerConfig {
  double bucket_mebibytes = 25;    ///< gradients reduced together
  bool compress_bfloat16 = false;  ///< halve the bytes; every rank receives the same rounded sums
};

/// Averages gradients over ranks while the backward pass runs: buckets of parameters, last layer
/// first, are all-reduced as soon as their gradients are ready. On one rank it only calls backward.
class GradientReducer {
 public:
  /// Every parameter must get a gradient in each backward pass. Sends rank 0's values to all ranks,
  /// after checking that all have the same shapes.
  GradientReducer(RankGroup& group,
                  const std::vector<std::pair<std::string, at::Tensor>>& parameters,
                  const GradientReducerConfig& config);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Calls loss.backward(). With `is_last`, the micro-batch that ends a step, averages the
  /// gradients of this and the earlier micro-batches over ranks; otherwise they stay local and add
  /// up.
  void backward(const at::Tensor& loss, bool is_last);

 private:
  void lay_out_buckets(const std::vector<at::Tensor>& parameters);

  RankGroup& group_;
  std::unique_ptr<c10d::Reducer> reducer_;
};

}  // namespace dsmoe
