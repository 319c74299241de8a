#pragma once

#include <string>

#include "cli/command_line.h"

namespace dsmoe {

/// Options of every command that runs a model.
struct ModelOptions {
  std::string checkpoint;
  std::string policy;  ///< empty: the checkpoint's training selection
  std::string execution = "auto";
  std::string device = "auto";
  std::string dtype = "float32";  ///< of the weights
  int threads = 0;
};
void add_model_options(Command& command, ModelOptions& options);

/// --force, of every command that makes a file or directory.
void add_force_option(Command& command, bool& force);

}  // namespace dsmoe
