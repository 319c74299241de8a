#pragma once

#include <cstdint>
#include <string>

namespace dsmoe {

/// What a run must remember besides tensors: one file of the checkpoint, `state-rank-00000.json`.
/// The epoch, the learning rate and the order of the data are functions of these.
struct TrainState {
  std::string run_id;
  int64_t step = 0;          ///< optimizer steps done
  int64_t position = 0;      ///< sequences consumed
  int64_t tokens = 0;        ///< tokens consumed
  std::string random_state;  ///< of the default CPU generator: dropout
};

std::string state_to_json(const TrainState& state);

/// Throws Error naming source_name for a missing or ill-typed key.
TrainState parse_state(const std::string& text, const std::string& source_name);

}  // namespace dsmoe
