#include "model/moe/routing_plan.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <set>

#include "common/error.h"
#include "common/path_expansion.h"

namespace dsmoe {
namespace {

void set_kind(LayerRouting& routing, const std::string& kind, const std::string& policy) {
  if (kind == "moe") {
    routing.moe = parse_routing_policy(policy);
  } else if (kind == "moa") {
    routing.moa = parse_routing_policy(policy);
  } else {
    throw Error(fmt::format("routing plan: expected the kind moe or moa, got '{}'", kind));
  }
}

LayerRouting parse_kinds(const std::string& text) {
  LayerRouting routing;
  std::set<std::string> seen;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(';', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const size_t colon = part.find(':');
    if (colon == std::string::npos) {
      throw Error(fmt::format("routing plan: expected kind:policy, got '{}'", part));
    }
    if (!seen.insert(part.substr(0, colon)).second) {
      throw Error(fmt::format("routing plan: kind '{}' appears twice", part.substr(0, colon)));
    }
    set_kind(routing, part.substr(0, colon), part.substr(colon + 1));
    begin = end + 1;
  }
  return routing;
}

RoutingPlan read_plan_file(const std::string& path) {
  try {
    const YAML::Node root = YAML::LoadFile(expand_home(path, "routing"));
    if (!root.IsMap() || root.size() != 1 || !root["layers"].IsSequence()) {
      throw Error(fmt::format("{}: expected one key 'layers' with a list of policies", path));
    }
    std::vector<LayerRouting> layers;
    for (const auto& node : root["layers"]) {
      if (!node.IsMap()) throw Error(fmt::format("{}: expected a map per layer", path));
      LayerRouting routing;
      for (const auto& pair : node) {
        set_kind(routing, pair.first.as<std::string>(), pair.second.as<std::string>());
      }
      layers.push_back(routing);
    }
    if (layers.empty()) throw Error(fmt::format("{}: expected at least one layer", path));
    return RoutingPlan(std::move(layers));
  } catch (const YAML::Exception& error) {
    throw Error(fmt::format("{}: not a routing plan: {}", path, error.what()));
  }
}

}  // namespace

RoutingPlan RoutingPlan::with(Execution execution) const {
  RoutingPlan plan = *this;
  const auto set = [&](LayerRouting& routing) {
    routing.moa.execution = execution;
    routing.moe.execution = execution;
  };
  set(plan.uniform_);
  for (auto& routing : plan.layers_) set(routing);
  return plan;
}

void RoutingPlan::validate(size_t n_layers, int64_t n_moa_experts, int64_t n_moe_experts) const {
  if (!layers_.empty() && layers_.size() != n_layers) {
    throw Error(fmt::format("routing plan: expected {} layers, got {}", n_layers, layers_.size()));
  }
  for (size_t i = 0; i < n_layers; ++i) {
    if (n_moa_experts > 0) layer(i).moa.validate(n_moa_experts, fmt::format("layer {} moa", i));
    if (n_moe_experts > 0) layer(i).moe.validate(n_moe_experts, fmt::format("layer {} moe", i));
  }
}

std::string RoutingPlan::to_string() const {
  // A bare top_k applies to the FFN experts only.
  const auto text = [](const LayerRouting& routing) {
    return routing.moa == routing.moe && routing.moe.selection != Selection::kTopK
               ? routing.moe.to_string()
               : fmt::format("moe:{};moa:{}", routing.moe.to_string(), routing.moa.to_string());
  };
  return layers_.empty() ? text(uniform_) : fmt::format("routing of {} layers", layers_.size());
}

RoutingPlan parse_routing_plan(const std::string& text) {
  if (text.rfind("routing=", 0) == 0) return read_plan_file(text.substr(8));
  if (text.find(':') != std::string::npos) return RoutingPlan(parse_kinds(text));
  const RoutingPolicy policy = parse_routing_policy(text);
  if (policy.selection == Selection::kTopK) {
    return RoutingPlan(LayerRouting{.moa = RoutingPolicy::all(), .moe = policy});
  }
  return RoutingPlan(policy);
}

}  // namespace dsmoe
