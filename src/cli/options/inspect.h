#pragma once

#include <string>

namespace dsmoe {

/// Arguments of `dsmoe inspect`.
struct InspectCommand {
  std::string checkpoint;
  bool tensors = false;
  bool json = false;
};

}  // namespace dsmoe
