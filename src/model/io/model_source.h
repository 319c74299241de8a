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

/// A tensor that is somewhere else until it is asked for.
struct LazyTensor {
  std::string name;  // of this program's checkpoints
  std::vector<int64_t> shape;
  std::function<at::Tensor()> load;  // float32, contiguous
};

/// A model whose weights come one at a time, so that it may be larger than the memory: what
/// conversions read, change and write.
struct ModelSource {
  ModelConfig config;
  std::vector<LazyTensor> tensors;  // every parameter of a Transformer of that config, once
};

/// How the rows of a head are paired by its rotary embedding.
enum class RotaryPairs { kHalves, kNeighbours };

/// A LLaMA's weights under Hugging Face's names, in F32, BF16 or F16; turned into this program's
/// rotary order where they have the other.
///
/// Every tensor must be of the model and the other way round: throws Error that lists what is
/// missing and what is left over. Rotary frequencies in old files are ignored; a tied head that is
/// in the files must equal the embedding.
ModelSource open_llama(std::shared_ptr<const TensorSource> source,
                       ModelConfig config,
                       RotaryPairs pairs,
                       const std::string& source_name);

/// A directory in Hugging Face's layout: `config.json` and safetensors; warns of keys that it does
/// not know. Throws Error.
ModelSource open_hf_llama(Io& io, const std::string& directory);

/// A llama2.c file. The base of its rotary embedding is that of the tables in the file, where they
/// hold one, else 10000. Throws Error.
ModelSource open_llama2c(Io& io, const std::string& path);

/// A checkpoint of this program. Throws Error.
ModelSource open_checkpoint(Io& io, const VerifiedCheckpoint& checkpoint);

/// The model itself, in evaluation mode. Throws Error if the source's tensors are not the model's.
Transformer instantiate(const ModelSource& source);

}  // namespace dsmoe
