#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/options/convert.h"
#include "common/io.h"
#include "data/tokenizer.h"
#include "model/io/model_source.h"

namespace dsmoe {

/// A model that a conversion starts from, with its tokenizer.
struct OpenedSource {
  ModelSource model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string kind;  // checkpoint, hf-llama or llama2c
};

/// A checkpoint or run directory, a Hugging Face LLaMA directory, or a llama2.c file. Throws Error;
/// also for a tokenizer other than the source's own, unless the choice says that it may differ.
OpenedSource open_source(Io& io, const std::string& path, const TokenizerChoice& choice);

}  // namespace dsmoe
