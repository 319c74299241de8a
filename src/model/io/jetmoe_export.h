#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"

namespace dsmoe {

/// JetMoE as the Python library transformers (model_type `jetmoe`, from 4.41) defines it: one
/// number of experts and one number of selected ones for attention and FFN, weights renormalised
/// over the selected, linear routers, SwiGLU experts, RMSNorm of eps 1e-6, one bias behind
/// attention and one behind the experts. SiLU, quick-GELU and squared ReLU experts are gated ones
/// whose two matrices are one (quick-GELU: up to a factor, float32 only).
///
/// With every expert selected renormalising changes nothing, so a densely run model is exact; fewer
/// attention experts than FFN experts are then written several times each, whose weights add up
/// again. Source: huggingface/transformers, models/jetmoe.
std::vector<std::string> jetmoe_obstacles(const ModelConfig& config, const RoutingPlan& plan);
int64_t write_jetmoe(Io& io,
                     const Transformer& model,
                     const ExportRequest& request,
                     const std::string& out);
Transformer read_jetmoe(Io& io, const std::string& out);

}  // namespace dsmoe
