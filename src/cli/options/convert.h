#pragma once

#include <string>

#include "data/text_reader.h"

namespace dsmoe {

/// The tokenizer that a conversion gives to the model.
struct TokenizerChoice {
  std::string spec;         ///< as for `dsmoe tokenize`; empty: the source's own
  bool may_differ = false;  ///< from the source's own, where that can be read
};

/// Arguments of `dsmoe convert`.
struct ConvertCommand {
  std::string source;
  std::string out;
  TokenizerChoice tokenizer;
  std::string partition;
  std::string text;
  bool force = false;
  TextFormat format;
  int threads = 0;
  bool json = false;
};

}  // namespace dsmoe
