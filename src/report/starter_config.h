#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/parameter_count.h"
#include "train/memory_plan.h"
#include "train/train_config.h"

namespace dsmoe {

enum class StarterStyle {
  kDsMoe,      ///< trained densely, run sparsely: arXiv:2404.05567
  kDense,      ///< the dense baseline of the same matrices
  kSmoe,       ///< trained sparsely, top 2 of 16 FFN experts
  kPartition,  ///< a dense model whose FFNs were cut into experts: arXiv:2502.12455
};

/// Throws Error for another name than ds-moe, dense, smoe and partition.
StarterStyle parse_starter_style(const std::string& name);

/// A checkpoint to train on from.
struct StarterSource {
  std::string path;
  ModelConfig model;
};

/// Inputs of a starter config.
struct StarterRequest {
  int64_t parameters = 0;  ///< of the model, embeddings included; 0: those of the source
  int64_t tokens = 0;      ///< to train on
  StarterStyle style = StarterStyle::kDsMoe;
  std::optional<StarterSource> source;  ///< its model is used, whatever the style
  int64_t vocab_size = 0;               ///< 0: chosen by size
  bool has_data = false;                ///< the data sets below exist
  std::string train = "shards/train";
  std::string validation = "shards/valid";
};

/// Parameters that a policy uses per token; embeddings left out.
struct StarterPolicy {
  std::string policy;
  double active_parameters = 0;
};

/// A config to begin with, and what it comes to.
struct StarterConfig {
  std::string name;  ///< such as ds-moe-20m
  std::string file;  ///< to write; NAME.yaml unless asked for
  std::string yaml;  ///< with comments that say where the values come from
  RunConfig config;  ///< the same, read, with its steps
  ParameterCount parameters;
  std::vector<StarterPolicy> policies;  ///< those that do not depend on the data
  TrainingMemory memory;
  int64_t tokens_per_step = 0;
  int64_t tokens = 0;                      ///< of all steps
  std::vector<std::string> next_commands;  ///< without the program's name
};

/// Chooses sizes, batch, learning rate and loss weights between those of the project's runs
/// (configs/quickstart.yaml) and those of arXiv:2404.05567 (1B to 6B). The parameters differ from
/// the requested ones by less than 5 %.
///
/// file  to write; empty: named after style and size
/// Throws Error for parameters outside [500k, 20B], tokens of less than one step, parameters that
/// differ from the source's by more than 5 %.
StarterConfig make_starter_config(const StarterRequest& request, const std::string& file);

}  // namespace dsmoe
