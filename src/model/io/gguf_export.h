#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"

namespace dsmoe {

/// A GGUF file for llama.cpp: architecture `olmoe` for a model with qk_norm, otherwise `qwen2moe`
/// with a shared expert of zeros. Requires dense attention, SwiGLU experts, a linear router without
/// renormalised weights and a fixed number of experts.
/// Routers and norms stay float32. The file carries no tokenizer (`no_vocab`).
std::vector<std::string> gguf_obstacles(const ModelConfig& config, const RoutingPlan& plan);
int64_t write_gguf(Io& io,
                   const Transformer& model,
                   const ExportRequest& request,
                   const std::string& out);
Transformer read_gguf(Io& io, const std::string& out);

}  // namespace dsmoe
