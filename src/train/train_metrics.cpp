#include "train/train_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/log.h"
#include "eval/expert_use.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxLinesBytes = uint64_t{1} << 34;

std::string format_count(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f}B", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f}M", value / 1e6);
  if (value >= 1e3) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{}", count);
}

std::string format_duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  if (whole >= 36000) return fmt::format("{}h", whole / 3600);
  if (whole >= 600) return fmt::format("{}m", whole / 60);
  return whole >= 60 ? fmt::format("{}m{:02}s", whole / 60, whole % 60) : fmt::format("{}s", whole);
}

using Scalars = std::vector<std::pair<std::string, double>>;

double rounded(double value) { return std::round(value * 1e6) / 1e6; }

// Per layer, in metrics.jsonl as lists, in TensorBoard as one curve per layer.
void add_routing(const std::string& kind,
                 const std::vector<LayerRoutingStats>& layers,
                 nlohmann::ordered_json& json,
                 Scalars& scalars) {
  if (layers.empty()) return;
  nlohmann::ordered_json lists = nlohmann::ordered_json::object();
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& layer = layers[i];
    const auto add = [&](const char* name, double value) {
      lists[name].push_back(rounded(value));
      scalars.emplace_back(fmt::format("{}_{}/layer_{}", kind, name, i), value);
    };
    if (layer.entropies) {
      add("mutual_information", layer.entropies->mutual_information());
      add("token_entropy", layer.entropies->token);
      add("mean_entropy", layer.entropies->mean);
    }
    add("active_experts", layer.active_experts);
    add("max_load", *std::max_element(layer.load.begin(), layer.load.end()));
    add("min_load", *std::min_element(layer.load.begin(), layer.load.end()));
    auto& loads = lists["load"].emplace_back(nlohmann::ordered_json::array());
    for (const double load : layer.load) loads.push_back(rounded(load));
  }
  json[kind + "_routing"] = std::move(lists);
}

std::string lines_path(const std::string& run_directory) {
  return run_directory + "/metrics.jsonl";
}

// The last line of a step that holds a loss; null if there is none.
nlohmann::json find_step(const std::string& lines, int64_t step) {
  size_t end = lines.size();
  while (end > 0) {
    const size_t newline = lines.rfind('\n', end - 1);
    const size_t begin = newline == lines.npos ? 0 : newline + 1;
    auto json = nlohmann::json::parse(lines.begin() + static_cast<int64_t>(begin),
                                      lines.begin() + static_cast<int64_t>(end),
                                      nullptr,
                                      /*allow_exceptions=*/false);
    end = newline == lines.npos ? 0 : newline;
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json["step"].get<int64_t>() < step) break;
    if (json["step"].get<int64_t>() == step && json.contains("loss")) return json;
  }
  return nullptr;
}

double number_in(const nlohmann::json& json, const std::string& key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : std::nan("");
}

}  // namespace

std::optional<StepMetrics> read_step_metrics(Io& io,
                                             const std::string& run_directory,
                                             int64_t step) {
  const auto path = lines_path(run_directory);
  if (!std::filesystem::exists(path)) return std::nullopt;
  const auto json = find_step(read_file(io, path, kMaxLinesBytes), step);
  if (json.is_null()) return std::nullopt;
  const auto real = [&](const char* key) { return number_in(json, key); };
  const auto whole = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
  };
  StepMetrics metrics;
  metrics.step = step;
  metrics.tokens = whole("tokens");
  metrics.loss = real("loss");
  const auto weights = json.value("loss_weights", nlohmann::json::object());
  for (const auto& name : loss_names()) {
    const auto key = loss_key(name);
    if (!json.contains(key)) continue;
    metrics.loss_terms.push_back(
        {.name = name, .value = number_in(json, key), .weight = number_in(weights, key)});
  }
  metrics.learning_rate = real("learning_rate");
  metrics.gradient_norm = real("gradient_norm");
  metrics.tokens_per_second = real("tokens_per_second");
  metrics.mfu = real("mfu");
  metrics.peak_memory_bytes = whole("peak_memory_bytes");
  metrics.skipped_steps = whole("skipped_steps");
  return metrics;
}

std::string format_log_line(const StepMetrics& m, int64_t total_steps) {
  const double tokens_per_step = static_cast<double>(m.tokens) / static_cast<double>(m.step);
  const double left = static_cast<double>(total_steps - m.step) * tokens_per_step;
  return fmt::format(
      "step {}/{} | tokens {} | loss {} | lr {:.1e} | grad {:.2f} | {:.0f} tok/s | mfu "
      "{:.0f}% | {:.1f} GiB{} | eta {}",
      m.step,
      total_steps,
      format_count(m.tokens),
      format_loss(m.loss, m.loss_terms),
      m.learning_rate,
      m.gradient_norm,
      m.tokens_per_second,
      m.mfu * 100.0,
      static_cast<double>(m.device_memory_bytes.value_or(m.peak_memory_bytes)) / (1 << 30),
      m.device_memory_bytes ? " on device" : "",
      format_duration(m.tokens_per_second > 0 ? left / m.tokens_per_second : 0.0));
}

TrainMetrics::TrainMetrics(Io& io,
                           const std::string& run_directory,
                           int64_t first_step,
                           int64_t total_steps)
    : total_steps_(total_steps), tensorboard_(io, run_directory + "/tensorboard", first_step) {
  keep_lines_up_to_step(io, lines_path(run_directory), first_step);
  lines_ = std::make_unique<JsonLines>(io, lines_path(run_directory));
}

void TrainMetrics::add(const StepMetrics& m) {
  log_info(format_log_line(m, total_steps_));
  nlohmann::ordered_json json = {{"step", m.step}, {"tokens", m.tokens}, {"loss", m.loss}};
  Scalars scalars = {{"loss/total", m.loss},
                     {"learning_rate", m.learning_rate},
                     {"gradient_norm", m.gradient_norm},
                     {"tokens_per_second", m.tokens_per_second},
                     {"skipped_steps", static_cast<double>(m.skipped_steps)}};
  nlohmann::ordered_json weights;
  for (const auto& term : m.loss_terms) {
    json[loss_key(term.name)] = term.value;
    weights[loss_key(term.name)] = term.weight;
    scalars.emplace_back("loss/" + term.name, term.value);
  }
  json["loss_weights"] = std::move(weights);
  json["learning_rate"] = m.learning_rate;
  json["gradient_norm"] = m.gradient_norm;
  json["tokens_per_second"] = m.tokens_per_second;
  json["mfu"] = m.mfu;
  json["peak_memory_bytes"] = m.peak_memory_bytes;
  if (m.device_memory_bytes) json["device_memory_bytes"] = *m.device_memory_bytes;
  json["skipped_steps"] = m.skipped_steps;
  add_routing("moe", m.routing.moe, json, scalars);
  add_routing("moa", m.routing.moa, json, scalars);
  lines_->add(json);
  tensorboard_.add(m.step, scalars);
}

void TrainMetrics::add_validation(int64_t step, const PerplexityResult& result) {
  const double loss = result.nats_per_token();
  std::string line = fmt::format("step {}/{} | validation loss {:.4f}", step, total_steps_, loss);
  nlohmann::ordered_json json = {{"step", step}, {"validation_loss", loss}};
  std::vector<std::pair<std::string, double>> scalars = {{"loss/validation", loss}};
  if (const auto use = summarise_ffn_experts(result.usage)) {
    line += fmt::format(
        " | experts {:.2f} (layers {:.2f} to {:.2f}), none {:.2f} %, mean weight {:.2f}",
        use->active,
        use->least,
        use->most,
        100.0 * use->without,
        use->mean_weight);
    json["experts"] = expert_use_to_json(result.usage);
    scalars.insert(scalars.end(),
                   {{"experts/active", use->active},
                    {"experts/least_layer", use->least},
                    {"experts/most_layer", use->most},
                    {"experts/without", use->without},
                    {"experts/mean_weight", use->mean_weight}});
    if (use->least == 0.0) {
      log_warning("a layer uses none of its experts for any token of the validation text");
    }
  }
  log_info(line);
  lines_->add(json);
  tensorboard_.add(step, scalars);
}

void TrainMetrics::add_event(int64_t step, const std::string& event, const std::string& text) {
  log_warning(fmt::format("step {}/{} | {}: {}", step, total_steps_, event, text));
  lines_->add({{"step", step}, {"event", event}, {"text", text}});
}

}  // namespace dsmoe
