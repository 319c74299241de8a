#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/io.h"
#include "formats/tensor_source.h"
#include "model/io/checkpoint_reader.h"
#include "model/io/llama_config.h"
#include "model/model_config.h"
#include "model/transformer.h"

namespace dsmoe {

/// A tensor that is loaded on request.
struct LazyTensor {
  std::string name;  // of this program's checkpoints
  std::vector<int64_t> shape;
  std::function<at::Tensor()> load;  // float32, contiguous
};

/// A model with weights that are loaded one at a time, so that it may be larger than the memory.
/// Conversions read, change and write it.
struct ModelSource {
  ModelConfig config;
  std::vector<LazyTensor> tensors;  // every parameter of a Transformer of that config, once
};

/// Pairing of the rows of a head by its rotary embedding.
enum class RotaryPairs { kHalves, kNeighbours };

/// Opens the weights of a LLaMA under Hugging Face names, in F32, BF16 or F16; reorders rotary rows
/// to the order of this program if `pairs` differs.
///
/// The source must contain exactly the tensors of the model: throws Error listing missing and
/// unused tensors. Ignores rotary frequencies of old files; a tied head in the files must equal the
/// embedding.
ModelSource open_llama(std::shared_ptr<const TensorSource> source,
                       ModelConfig config,
                       RotaryPairs pairs,
                       const std::string& source_name);

/// Opens a directory in Hugging Face's layout: `config.json` and safetensors; warns about unknown
/// keys. Throws Error.
ModelSource open_hf_llama(Io& io, const std::string& directory);

/// Opens a llama2.c file. Derives the base of the rotary embedding from the tables in the file if
/// they define one, else uses 10000. Throws Error.
ModelSource open_llama2c(Io& io, const std::string& path);

/// Opens a checkpoint of this program. Throws Error.
ModelSource open_checkpoint(Io& io, const VerifiedCheckpoint& checkpoint);

/// Loads the model, in evaluation mode. Throws Error if the tensors of the source are not those of
/// the model.
Transformer instantiate(const ModelSource& source);

}  // namespace dsmoe
