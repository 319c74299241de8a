#include "model/moe/routing_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/error.h"
#include "common/suggestion.h"

namespace dsmoe {
namespace {

constexpr const char* kForms = "all, top_k=K, threshold=E, threshold=E,max=K or threshold_top_k=E";

[[noreturn]] void fail(const std::string& text,
                       const std::string& expected,
                       const std::string& hint = "") {
  throw Error(fmt::format("routing policy: expected {}, got '{}'{}", expected, text, hint));
}

// `; did you mean 'top_k=4'?` for `top-k=4`.
std::string correction_of(const std::string& text) {
  const size_t equals = std::min(text.find('='), text.size());
  const auto name = nearest_word(text.substr(0, equals),
                                 {"all", "top_k", "threshold", "threshold_top_k", "routing"});
  if (name.empty() || (name == "all") != (equals == text.size())) return "";
  return fmt::format("; did you mean '{}{}'?", name, text.substr(equals));
}

template <class Number>
Number parse_number(const std::string& text, const std::string& whole) {
  Number value{};
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) fail(whole, kForms);
  return value;
}

bool take_prefix(std::string& text, const std::string& prefix) {
  if (text.rfind(prefix, 0) != 0) return false;
  text.erase(0, prefix.size());
  return true;
}

}  // namespace

void RoutingPolicy::validate(int64_t n_experts, const std::string& who) const {
  if (selection == Selection::kTopK && (k < 1 || k > n_experts)) {
    throw Error(fmt::format("{}: top_k = {} is outside [1, n_experts = {}]", who, k, n_experts));
  }
  if (max_experts < 0) throw Error(fmt::format("{}: max = {} is below 1", who, max_experts));
  const bool uses_epsilon =
      selection == Selection::kThreshold || selection == Selection::kThresholdTopK;
  if (uses_epsilon && (!std::isfinite(epsilon) || epsilon < 0)) {
    throw Error(fmt::format("{}: threshold = {} is not a finite number >= 0", who, epsilon));
  }
}

std::string RoutingPolicy::to_string() const {
  switch (selection) {
    case Selection::kAll:
      return "all";
    case Selection::kTopK:
      return fmt::format("top_k={}", k);
    case Selection::kThreshold:
      return max_experts > 0 ? fmt::format("threshold={},max={}", epsilon, max_experts)
                             : fmt::format("threshold={}", epsilon);
    case Selection::kThresholdTopK:
      return fmt::format("threshold_top_k={}", epsilon);
  }
  throw Error("routing policy: unknown selection");
}

RoutingPolicy parse_routing_policy(const std::string& text) {
  std::string rest = text;
  RoutingPolicy policy;
  if (text == "all") return policy;
  if (take_prefix(rest, "top_k=")) {
    policy = RoutingPolicy::top_k(parse_number<int64_t>(rest, text));
    if (policy.k < 1) fail(text, "top_k of 1 or more");
    return policy;
  }
  if (take_prefix(rest, "threshold_top_k=")) {
    policy = RoutingPolicy::threshold_top_k(parse_number<double>(rest, text));
  } else if (take_prefix(rest, "threshold=")) {
    const auto comma = rest.find(",max=");
    policy = RoutingPolicy::threshold(parse_number<double>(rest.substr(0, comma), text));
    if (comma != std::string::npos) {
      policy.max_experts = parse_number<int64_t>(rest.substr(comma + 5), text);
      if (policy.max_experts < 1) fail(text, "max of 1 or more");
    }
  } else {
    fail(text, kForms, correction_of(text));
  }
  if (!std::isfinite(policy.epsilon) || policy.epsilon < 0) fail(text, "a finite threshold >= 0");
  return policy;
}

Execution parse_execution(const std::string& text) {
  if (text == "auto") return Execution::kAuto;
  if (text == "dense") return Execution::kDense;
  if (text == "sparse") return Execution::kSparse;
  throw Error(fmt::format("execution: expected auto, dense or sparse, got '{}'", text));
}

}  // namespace dsmoe
