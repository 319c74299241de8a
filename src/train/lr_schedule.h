#pragma once

#include <cstdint>

#include "train/train_config.h"

namespace dsmoe {

/// The learning rate of one optimizer step, counted from 0; a pure function, so a resumed run needs
/// no schedule state.
///
/// Warm-up gives peak * (step + 1) / warmup_steps, so that the first step already learns. After it,
/// cosine falls to final_ratio * peak at total_steps; wsd stays at the peak and falls over the last
/// decay_steps; constant stays. Steps at or past total_steps keep the final value.
/// Throws Error if step is negative.
double learning_rate(const ScheduleConfig& config, int64_t step);

}  // namespace dsmoe
