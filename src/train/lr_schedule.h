#pragma once

#include <cstdint>

#include "train/train_config.h"

namespace dsmoe {

/// The learning rate of one optimizer step, counted from 0; a pure function, so a resumed run needs
/// no schedule state.
///
/// Warm-up gives peak * (step + 1) / warmup_steps, so that the first step already learns. After it,
/// cosine falls to final_ratio * peak at total_steps; wsd stays at the peak and falls over the last
/// decay_steps; constant stays. No step of a run is at total_steps: the last one, total_steps - 1,
/// is above final_ratio * peak by (1 - final_ratio) * peak times 1 / decay_steps (wsd linear),
/// 1 - sqrt(1 - 1 / decay_steps) (wsd one_minus_sqrt) or
/// 0.5 * (1 - cos(pi / (total_steps - warmup_steps))) (cosine). Later steps keep the final value.
/// Throws Error if step is negative.
double learning_rate(const ScheduleConfig& config, int64_t step);

}  // namespace dsmoe
