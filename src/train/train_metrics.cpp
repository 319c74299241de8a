#include "train/train_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/counts.h"
#include "common/log.h"
#include "eval/expert_use.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxLinesBytes = uint64_t{1} << 34;
constexpr int64_t kRowsPerHeading = 20;

// 2026-11-30T19:53:05Z
std::string utc_time(double seconds) {
  const auto whole = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&whole, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

// A policy as the name of a directory: no other characters than TensorBoard and shells take.
std::string directory_name(std::string policy) {
  for (auto& c : policy) {
    const bool is_plain = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (!is_plain && std::string_view("=.,;:_-").find(c) == std::string_view::npos) c = '_';
  }
  return policy;
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

// The last line of at most `step` that `accepts` takes; null if there is none.
template <class Accepts>
nlohmann::json find_last_line(const std::string& lines, int64_t step, const Accepts& accepts) {
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
    if (json["step"].get<int64_t>() <= step && accepts(json)) return json;
  }
  return nullptr;
}

std::string read_lines(Io& io, const std::string& run_directory) {
  const auto path = lines_path(run_directory);
  return std::filesystem::exists(path) ? read_file(io, path, kMaxLinesBytes) : "";
}

double number_in(const nlohmann::json& json, const std::string& key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : std::nan("");
}

}  // namespace

std::optional<StepMetrics> read_step_metrics(Io& io,
                                             const std::string& run_directory,
                                             int64_t step) {
  const auto json = find_last_line(
      read_lines(io, run_directory), step, [](const auto& line) { return line.contains("loss"); });
  if (json.is_null() || json["step"].get<int64_t>() != step) return std::nullopt;
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
  const auto bounds = json.value("loss_bounds", nlohmann::json::object());
  for (const auto& name : loss_names()) {
    const auto key = loss_key(name);
    if (!json.contains(key)) continue;
    metrics.loss_terms.push_back({.name = name,
                                  .value = number_in(json, key),
                                  .weight = number_in(weights, key),
                                  .bound = bounds.contains(key) ? number_in(bounds, key) : 0.0});
  }
  metrics.learning_rate = real("learning_rate");
  metrics.gradient_norm = real("gradient_norm");
  metrics.tokens_per_second = real("tokens_per_second");
  metrics.flops_per_second = real("flops_per_second");
  if (const double mfu = real("mfu"); std::isfinite(mfu)) metrics.mfu = mfu;
  metrics.peak_memory_bytes = whole("peak_memory_bytes");
  metrics.skipped_steps = whole("skipped_steps");
  return metrics;
}

std::vector<ValidationScore> read_validation_scores(Io& io,
                                                    const std::string& run_directory,
                                                    int64_t step) {
  const auto json = find_last_line(read_lines(io, run_directory), step, [](const auto& line) {
    return line.contains("validation_loss");
  });
  std::vector<ValidationScore> scores;
  if (json.is_null() || !json.contains("policies")) return scores;
  for (const auto& one : json["policies"]) {
    auto& score = scores.emplace_back();
    score.policy = one.value("policy", "");
    score.loss = number_in(one, "loss");
    if (const double bits = number_in(one, "bits_per_byte"); std::isfinite(bits)) {
      score.bits_per_byte = bits;
    }
    score.active_parameters = number_in(one, "active_parameters");
    score.active_share = number_in(one, "active_share");
  }
  return scores;
}

double ValidationScore::perplexity() const { return std::exp(loss); }

TrainMetrics::TrainMetrics(Io& io,
                           const std::string& run_directory,
                           int64_t first_step,
                           int64_t total_steps,
                           const std::vector<std::string>& policies,
                           WallClock clock)
    : first_step_(first_step),
      total_steps_(total_steps),
      clock_(std::move(clock)),
      started_at_(clock_()),
      tensorboard_(io, run_directory + "/tensorboard/train", first_step, clock_) {
  keep_lines_up_to_step(io, lines_path(run_directory), first_step);
  const auto last = find_last_line(read_lines(io, run_directory), first_step, [](const auto& line) {
    return line.contains("seconds");
  });
  if (!last.is_null()) seconds_ = number_in(last, "seconds");
  started_at_ -= seconds_;
  lines_ = std::make_unique<JsonLines>(io, lines_path(run_directory));
  for (const auto& policy : policies) {
    validation_tensorboards_.push_back(std::make_unique<TensorboardWriter>(
        io,
        fmt::format("{}/tensorboard/validation/{}", run_directory, directory_name(policy)),
        first_step,
        clock_));
  }
}

// The times come last: what is in front of them does not depend on the machine.
void TrainMetrics::add_line(nlohmann::ordered_json json) {
  json["time"] = utc_time(clock_());
  seconds_ = std::round((clock_() - started_at_) * 1e3) / 1e3;
  json["seconds"] = seconds_;
  lines_->add(json);
}

void TrainMetrics::add_config(const std::string& yaml) {
  std::string block;  // of code, in Markdown
  for (size_t begin = 0; begin < yaml.size();) {
    const size_t end = std::min(yaml.find('\n', begin), yaml.size() - 1);
    block += "    " + yaml.substr(begin, end - begin + 1);
    begin = end + 1;
  }
  tensorboard_.add_text(first_step_, "config", block);
}

void TrainMetrics::add(const StepMetrics& m) {
  if (!table_) {
    table_.emplace(m, total_steps_);
    for (const auto& line : table_->legend()) log_info(line);
  }
  if (rows_++ % kRowsPerHeading == 0) log_info(table_->heading());
  log_info(table_->row(m));

  nlohmann::ordered_json json = {{"step", m.step}, {"tokens", m.tokens}, {"loss", m.loss}};
  Scalars scalars = {{"loss/total", m.loss},
                     {"learning_rate", m.learning_rate},
                     {"gradient_norm", m.gradient_norm},
                     {"speed/tokens_per_second", m.tokens_per_second},
                     {"speed/flops_per_second", m.flops_per_second},
                     {"memory/peak_bytes", static_cast<double>(m.peak_memory_bytes)},
                     {"skipped_steps", static_cast<double>(m.skipped_steps)}};
  if (m.mfu) scalars.emplace_back("speed/mfu", *m.mfu);
  if (m.device_memory_bytes) {
    scalars.emplace_back("memory/device_bytes", static_cast<double>(*m.device_memory_bytes));
  }
  nlohmann::ordered_json weights;
  auto bounds = nlohmann::ordered_json::object();
  for (const auto& term : m.loss_terms) {
    const auto key = loss_key(term.name);
    json[key] = term.value;
    weights[key] = term.weight;
    scalars.emplace_back("loss/" + term.name, term.value);
    if (term.name == "lm") scalars.emplace_back("perplexity", std::exp(term.value));
    if (term.bound == 0) continue;
    bounds[key] = term.bound;
    scalars.emplace_back("share_of_bound/" + term.name, term.value / term.bound);
  }
  json["loss_weights"] = std::move(weights);
  if (!bounds.empty()) json["loss_bounds"] = std::move(bounds);
  json["learning_rate"] = m.learning_rate;
  json["gradient_norm"] = m.gradient_norm;
  json["tokens_per_second"] = m.tokens_per_second;
  json["flops_per_second"] = m.flops_per_second;
  json["mfu"] = m.mfu ? nlohmann::ordered_json(*m.mfu) : nlohmann::ordered_json(nullptr);
  json["peak_memory_bytes"] = m.peak_memory_bytes;
  if (m.device_memory_bytes) json["device_memory_bytes"] = *m.device_memory_bytes;
  json["skipped_steps"] = m.skipped_steps;
  add_routing("moe", m.routing.moe, json, scalars);
  add_routing("moa", m.routing.moa, json, scalars);
  add_line(std::move(json));
  tensorboard_.add(m.step, scalars);
  const auto add_loads = [&](const char* kind, const std::vector<LayerRoutingStats>& layers) {
    for (size_t i = 0; i < layers.size(); ++i) {
      tensorboard_.add_bars(
          m.step, fmt::format("{}_load_by_expert/layer_{}", kind, i), layers[i].load);
    }
  };
  add_loads("moe", m.routing.moe);
  add_loads("moa", m.routing.moa);
}

void TrainMetrics::add_validation(int64_t step, const std::vector<PolicyValidation>& validations) {
  const auto& first = validations.front();
  nlohmann::ordered_json json = {{"step", step},
                                 {"validation_loss", first.score.loss},
                                 {"policies", nlohmann::ordered_json::array()}};
  size_t width = 0;
  for (const auto& [score, result] : validations) width = std::max(width, score.policy.size());
  for (size_t i = 0; i < validations.size(); ++i) {
    const auto& [score, result] = validations[i];
    nlohmann::ordered_json one = {
        {"policy", score.policy}, {"loss", score.loss}, {"perplexity", score.perplexity()}};
    Scalars scalars = {{"loss/lm", score.loss},
                       {"perplexity", score.perplexity()},
                       {"active_parameters", score.active_parameters}};
    auto line = fmt::format("validation at {}, {:<{}}  loss {:.4f}, perplexity {:.4g}",
                            step,
                            score.policy,
                            width,
                            score.loss,
                            score.perplexity());
    if (score.bits_per_byte) {
      one["bits_per_byte"] = *score.bits_per_byte;
      scalars.emplace_back("bits_per_byte", *score.bits_per_byte);
    }
    one["active_parameters"] = score.active_parameters;
    one["active_share"] = score.active_share;
    if (const auto use = summarise_ffn_experts(result.usage)) {
      scalars.insert(scalars.end(),
                     {{"experts/active", use->active},
                      {"experts/least_layer", use->least},
                      {"experts/most_layer", use->most},
                      {"experts/without", use->without},
                      {"experts/mean_weight", use->mean_weight}});
      if (use->least == 0.0) {
        log_warning(
            fmt::format("{}: a layer uses none of its experts for any token of the validation text",
                        score.policy));
      }
    }
    if (score.active_share < 1) {
      line += fmt::format(
          ", {} active ({:.1f}%)", short_count(score.active_parameters), 100 * score.active_share);
    }
    one["experts"] = expert_use_to_json(result.usage);
    if (i == 0) json["experts"] = one["experts"];
    json["policies"].push_back(std::move(one));
    log_info(line);
    validation_tensorboards_.at(i)->add(step, scalars);
  }
  add_line(std::move(json));
}

void TrainMetrics::add_event(int64_t step, const std::string& event, const std::string& text) {
  log_warning(fmt::format("step {}/{} | {}: {}", step, total_steps_, event, text));
  add_line({{"step", step}, {"event", event}, {"text", text}});
  tensorboard_.add_text(step, "events", fmt::format("**{}** {}", event, text));
}

void TrainMetrics::add_stop(int64_t step, const std::string& why) {
  tensorboard_.add_text(step, "events", "**stop** " + why);
}

}  // namespace dsmoe
