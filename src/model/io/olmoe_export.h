#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"

namespace dsmoe {

/// OLMoE as defined by the Python library transformers (model_type `olmoe`): dense attention with
/// norms of all queries and of all keys, SwiGLU FFN experts, a linear router, a fixed number of
/// experts, with or without renormalised weights. Source: huggingface/transformers, models/olmoe.
std::vector<std::string> olmoe_obstacles(const ModelConfig& config, const RoutingPlan& plan);
int64_t write_olmoe(Io& io,
                    const Transformer& model,
                    const ExportRequest& request,
                    const std::string& out);
Transformer read_olmoe(Io& io, const std::string& out);

}  // namespace dsmoe
