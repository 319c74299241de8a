#pragma once

#include <cstdint>
#include <string>

#include "train/spike_guard.h"

namespace dsmoe {

/// State of a run besides tensors: one file of the checkpoint, `state-rank-00000.json`.
/// The epoch, the learning rate and the order of the data are functions of these.
struct TrainState {
  std::string run_id;
  int64_t step = 0;            ///< optimizer steps done
  int64_t position = 0;        ///< sequences consumed
  int64_t tokens = 0;          ///< tokens consumed
  std::string random_state;    ///< of the default CPU generator: dropout
  int64_t validated_step = 0;  ///< of the last validation; 0: none yet
  double validation_loss = 0;  ///< of that step
  int64_t best_step = 0;       ///< the saved step of the lowest validation loss; 0: none yet
  double best_loss = 0;        ///< of that step
  SpikeHistory guard;
};

/// To be called before the state is saved: if its step was validated and is better than the best
/// saved one, it becomes that.
void note_best(TrainState& state);

std::string state_to_json(const TrainState& state);

/// Throws Error naming source_name for a missing or ill-typed key.
TrainState parse_state(const std::string& text, const std::string& source_name);

}  // namespace dsmoe
