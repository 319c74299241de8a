#pragma once

#include "model/experts/expert_backend.h"

namespace dsmoe {

/// Backends of one product per expert over the rows of a Dispatch, which they list.
class RowBackend : public ExpertBackend {
 public:
  Hidden hidden(const ExpertPass& pass, const at::Tensor& x) const override;
  at::Tensor sum(const ExpertPass& pass, const Hidden& hidden) const override;
};

}  // namespace dsmoe
