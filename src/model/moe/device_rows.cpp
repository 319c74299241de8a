#include "model/moe/device_rows.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace dsmoe {

int64_t most_selected(const ExpertSelection& selection) {
  const int64_t n_experts = selection.selected.size(1);
  return selection.most_per_token > 0 ? std::min(selection.most_per_token, n_experts) : n_experts;
}

bool lists_on_device(const at::Tensor& x, const ExpertSelection& selection) {
  return has_dispatch_kernels(x) && (selection.most_per_token > 0 || !at::GradMode::is_enabled());
}

RoutedRows list_selected(const ExpertSelection& selection) {
  return list_rows(selection.selected, selection.selected.size(0) * most_selected(selection));
}

}  // namespace dsmoe
