#pragma once

#include "model/experts/expert_backend.h"

namespace dsmoe {

/// Backends that list the rows of a Dispatch and run one product per expert over them.
class RowBackend : public ExpertBackend {
 public:
  Hidden hidden(const ExpertPass& pass, const at::Tensor& x) const override;
  at::Tensor sum(const ExpertPass& pass, const Hidden& hidden) const override;
};

}  // namespace dsmoe
