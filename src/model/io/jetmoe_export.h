#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"

namespace dsmoe {

/// JetMoE as defined by the Python library transformers (model_type `jetmoe`, from 4.41): the same
/// numbers of experts and of selected experts for attention and FFN, weights renormalised over the
/// selected experts, linear routers, SwiGLU experts, RMSNorm of eps 1e-6, one bias after attention
/// and one after the experts. SiLU, quick-GELU and squared ReLU experts are written as gated
/// experts with two equal matrices (quick-GELU: equal up to a factor, float32 only).
///
/// With every expert selected renormalising changes nothing, so a densely run model is exact. If it
/// has fewer attention experts than FFN experts, each is written several times, and the weights of
/// the copies add up to the original. Source: huggingface/transformers, models/jetmoe.
std::vector<std::string> jetmoe_obstacles(const ModelConfig& config, const RoutingPlan& plan);
int64_t write_jetmoe(Io& io,
                     const Transformer& model,
                     const ExportRequest& request,
                     const std::string& out);
Transformer read_jetmoe(Io& io, const std::string& out);

}  // namespace dsmoe
