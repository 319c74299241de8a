#pragma once

#include <cstdint>

#include "report/cost_plan.h"
#include "train/train_config.h"

namespace dsmoe {

/// `plan --roofline`: prints what the kernels of a micro-batch's step, and of a decode step of
/// n_keys keys under each policy, must do and how long that should take. Predictions. Returns 0.
int print_roofline(const RunConfig& config,
                   const PlanRequest& request,
                   int64_t n_keys,
                   bool as_json);

}  // namespace dsmoe
