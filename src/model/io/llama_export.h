#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"

namespace dsmoe {

/// Obstacles to a dense LLaMA. The experts of a partitioned FFN are none: they become the matrices
/// they were cut from, so that the written model is the one with every gate at 1.
std::vector<std::string> llama_export_obstacles(const ModelConfig& config, const RoutingPlan& plan);

/// Writes a dense LLaMA as the Python library transformers reads it; routers of a partitioned FFN
/// are left out. Returns the number of tensors. Throws RunError.
int64_t write_llama(Io& io,
                    const Transformer& model,
                    const ExportRequest& request,
                    const std::string& out);

/// Reads it back. Throws Error.
Transformer read_llama(Io& io, const std::string& out);

}  // namespace dsmoe
