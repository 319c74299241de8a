#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "csrc_kernels/dispatch/dispatch.h"
#include "model/moe/expert_selection.h"

namespace dsmoe {

/// How many experts a token can have selected.
int64_t most_selected(const ExpertSelection& selection);

/// Whether sparse execution lists the selected pairs on the device where x is, so that the host
/// does not wait to learn how many there are. Lists have the size that most_selected tells; where a
/// selection has no bound, that of all pairs, which only a pass without gradient affords.
/// x [n_tokens, d_model]
bool lists_on_device(const at::Tensor& x, const ExpertSelection& selection);

/// The pairs of a selection, where it lists_on_device.
RoutedRows list_selected(const ExpertSelection& selection);

}  // namespace dsmoe
