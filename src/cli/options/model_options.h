#pragma once

#include <string>
#include <string_view>

#include "cli/command_line.h"

namespace dsmoe {

/// Options of every command that runs a model.
struct ModelOptions {
  std::string checkpoint;
  std::string policy;  ///< empty: the checkpoint's training selection
  std::string execution = "auto";
  std::string device = "auto";
  std::string dtype = "auto";  ///< of the weights; auto: see default_dtype, float32 on a GPU
  int threads = 0;
};
void add_model_options(Command& command, ModelOptions& options);

/// The parts of add_model_options, for commands that have some of them.
void add_checkpoint_argument(Command& command, std::string& checkpoint);
Option add_policy_option(Command& command, std::string& policy);
void add_execution_option(Command& command, std::string& execution);
void add_device_option(Command& command, std::string& device, std::string_view help);
void add_dtype_option(Command& command, std::string& dtype);
void add_threads_option(Command& command, int& threads);

/// --force, of every command that makes a file or directory.
void add_force_option(Command& command, bool& force);

/// --json, of every command.
void add_json_option(Command& command, bool& json);

}  // namespace dsmoe
