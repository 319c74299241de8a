#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/parameter_count.h"
#include "report/gpu_specs.h"

namespace dsmoe {

/// The kernels of one kind in one pass, all layers together.
struct KernelWork {
  std::string name;
  double launches = 0;
  double flops = 0;     ///< of matrix products on tensor cores; 0 for other kernels
  double bytes = 0;     ///< each input read once, each output written once
  double seconds = 0;   ///< expected, see RooflineAssumptions
  bool matrix = false;  ///< whether FLOPs at matrix_share may bound it
};

/// Assumptions of the expected times; `scripts/gpu_selftest.sh` measures the real ones.
struct RooflineAssumptions {
  double matrix_share = 0.70;      ///< share of peak FLOP/s that large products reach
  double attention_share = 0.40;   ///< the same of fused attention
  double float32_share = 0.50;     ///< share of the float32 peak that routers' products reach
  double stream_share = 0.80;      ///< share of the memory bandwidth that elementwise kernels reach
  double vector_share = 0.70;      ///< share of it that matrix-vector products of decoding reach
  double launch_seconds = 1.5e-6;  ///< between two kernels of a recorded decode step
};

struct Roofline {
  std::vector<KernelWork> kernels;
  double seconds() const;
  double flops() const;
  double bytes() const;
};

/// One optimizer step over n_tokens in bfloat16 with float32 master weights, every expert active,
/// activations kept.
Roofline training_roofline(const ModelConfig& config,
                           const GpuSpec& gpu,
                           int64_t n_tokens,
                           int64_t seq_len,
                           const RooflineAssumptions& assumptions = {});

/// One decode step of `batch` sequences with n_keys keys each, `active` experts per token.
///
/// sparse  does not read the weights of experts that no token uses; tokens choose independently
Roofline decode_roofline(const ModelConfig& config,
                         const GpuSpec& gpu,
                         int64_t batch,
                         int64_t n_keys,
                         const ActiveExperts& active,
                         bool sparse,
                         const RooflineAssumptions& assumptions = {});

}  // namespace dsmoe
