#pragma once

#include "common/io.h"
#include "data/training_data.h"
#include "distributed/rank_group.h"
#include "model/transformer.h"
#include "train/parameter_shards.h"
#include "train/train_config.h"

namespace dsmoe {

/// Objects of a Trainer that its parts share and do not outlive.
struct TrainContext {
  Io& io;
  const RunConfig& config;
  const TrainingData& dataset;
  Transformer model;
  RankGroup& ranks;
  ParameterShards* shards = nullptr;  ///< null: every rank keeps whole parameters
};

}  // namespace dsmoe
