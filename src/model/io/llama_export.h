#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"

namespace dsmoe {

/// Obstacles to the export as a dense LLaMA. A partitioned FFN is no obstacle: its experts are
/// written as the matrices that they were cut from. The written model equals this one with every
/// gate at 1.
std::vector<std::string> llama_export_obstacles(const ModelConfig& config, const RoutingPlan& plan);

/// Writes a dense LLaMA for the Python library transformers; omits the routers of a partitioned
/// FFN. Returns the number of tensors. Throws RunError.
int64_t write_llama(Io& io,
                    const Transformer& model,
                    const ExportRequest& request,
                    const std::string& out);

/// Reads the directory that write_llama wrote. Throws Error.
Transformer read_llama(Io& io, const std::string& out);

}  // namespace dsmoe
