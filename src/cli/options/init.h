#pragma once

#include <cstdint>
#include <string>

namespace dsmoe {

/// Arguments of `dsmoe init`.
struct InitCommand {
  std::string params;  // a count such as 20M; empty: those of `from`
  std::string tokens;  // a count
  std::string style = "ds-moe";
  std::string from;  // empty: no checkpoint
  std::string data;  // empty: shards/train and shards/valid
  int64_t vocab_size = 0;
  std::string out;  // empty: named after style and size
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
