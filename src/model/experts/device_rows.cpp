#include "model/experts/row_backend.h"

namespace dsmoe {
namespace {

class DeviceRowsBackend final : public RowBackend {
 public:
  // at::_grouped_mm needs a host sync for other types and on other devices.
  bool needs_host_sync(const at::Tensor& x) const override {
    return !x.is_cuda() || x.scalar_type() != at::kBFloat16;
  }
  void list(ExpertPass& pass, const at::Tensor&) const override {
    const auto& choice = pass.choice;
    pass.rows = list_rows(choice.selected, choice.selected.size(0) * most_experts(choice));
    pass.rows.weight_of_row = gather_weights(choice.expert_weights, pass.rows);
  }
};

}  // namespace

const ExpertBackend& device_rows_backend() {
  static const DeviceRowsBackend backend;
  return backend;
}

}  // namespace dsmoe
