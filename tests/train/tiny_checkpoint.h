#pragma once

#include <ATen/ops/full.h>

#include <cstdint>

#include "train/checkpoint_store.h"

namespace dsmoe {

/// A checkpoint of three small tensors with values derived from the step.
inline CheckpointContents tiny_checkpoint(int64_t step) {
  CheckpointContents contents;
  contents.manifest.run_id = "0123456789abcdef";
  contents.manifest.step = step;
  const auto value = static_cast<double>(step);
  contents.model = {{"a.weight", at::full({3, 5}, value)}, {"b", at::full({2}, -value)}};
  contents.optimizer = {{"a.weight.exp_avg", at::full({3, 5}, value / 2)}};
  contents.files = {{"config.json", "{}"}};
  return contents;
}

}  // namespace dsmoe
