// Counts in the units that people think in; see resolve_units in train_config.h.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/counts.h"
#include "common/error.h"
#include "train/train_config.h"

namespace dsmoe {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

void resolve_accumulation(RunConfig& config, std::vector<std::string>& lines) {
  auto& train = config.train;
  const int64_t micro_batch = train.batch_size * config.seq_len();
  if (train.batch_tokens > 0) {
    train.accumulation = std::max<int64_t>((train.batch_tokens + micro_batch / 2) / micro_batch, 1);
    lines.push_back(fmt::format("train.accumulation = {}: batch_tokens = {}, {} a micro-batch",
                                train.accumulation,
                                train.batch_tokens,
                                micro_batch));
  }
  if (train.batch_sequences > 0) {
    if (train.batch_sequences % train.batch_size != 0) {
      throw Error(
          fmt::format("train.batch_sequences: expected a multiple of train.batch_size = {}, got {}",
                      train.batch_size,
                      train.batch_sequences));
    }
    train.accumulation = train.batch_sequences / train.batch_size;
    lines.push_back(fmt::format("train.accumulation = {}: batch_sequences = {}, {} a micro-batch",
                                train.accumulation,
                                train.batch_sequences,
                                train.batch_size));
  }
  train.batch_tokens = train.batch_sequences = 0;
}

void resolve_steps(RunConfig& config,
                   std::optional<int64_t> data_tokens,
                   std::vector<std::string>& lines) {
  auto& train = config.train;
  const int64_t per_step = config.tokens_per_step();
  if (train.tokens > 0) {
    train.steps = divide_up(train.tokens, per_step);
    lines.push_back(fmt::format(
        "train.steps = {}: tokens = {}, {} a step", train.steps, train.tokens, per_step));
  }
  if (train.epochs > 0) {
    if (!data_tokens) {
      throw Error(fmt::format(
          "train.epochs = {}: expected the data of data.train, whose tokens are counted, got none; "
          "set train.tokens or train.steps",
          train.epochs));
    }
    const double tokens = train.epochs * static_cast<double>(*data_tokens);
    train.steps =
        std::max<int64_t>(std::llround(std::ceil(tokens / static_cast<double>(per_step))), 1);
    lines.push_back(fmt::format("train.steps = {}: epochs = {}, {} tokens each, {} a step",
                                train.steps,
                                train.epochs,
                                *data_tokens,
                                per_step));
  }
  train.tokens = 0;
  train.epochs = 0;
}

std::string without_blanks(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c != ' ') result += c;
  }
  return result;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = error == std::errc{} && stop == text.data() + text.size();
  return is_number && value >= 0 ? std::optional(value) : std::nullopt;
}

// Steps of a text; empty for another text.
std::optional<int64_t> warmup_steps(const RunConfig& config) {
  auto text = without_blanks(config.train.schedule.warmup);
  const auto take = [&](const char* unit) {
    if (!text.ends_with(unit)) return false;
    text.resize(text.size() - std::string_view(unit).size());
    return true;
  };
  const auto share_of_steps = [&](double share) {
    return std::llround(share * static_cast<double>(config.train.steps));
  };
  if (take("%")) {
    const auto percent = parse_number(text);
    if (!percent || *percent > 100) return std::nullopt;
    return share_of_steps(*percent / 100);
  }
  if (take("tokens") || take("token")) {
    const auto tokens = parse_count(text);
    if (!tokens || *tokens < 0) return std::nullopt;
    return divide_up(*tokens, config.tokens_per_step());
  }
  if (!take("steps")) take("step");
  if (const auto steps = parse_count(text)) {
    return *steps >= 0 ? steps : std::nullopt;
  }
  const auto share = parse_number(text);
  return share && *share < 1 ? std::optional<int64_t>(share_of_steps(*share)) : std::nullopt;
}

}  // namespace

bool TrainConfig::has_units() const {
  return tokens > 0 || epochs > 0 || batch_tokens > 0 || batch_sequences > 0 ||
         !schedule.warmup.empty();
}

std::vector<std::string> resolve_units(RunConfig& config, std::optional<int64_t> data_tokens) {
  std::vector<std::string> lines;
  resolve_accumulation(config, lines);
  resolve_steps(config, data_tokens, lines);
  auto& schedule = config.train.schedule;
  if (schedule.warmup.empty()) return lines;
  const auto steps = warmup_steps(config);
  if (!steps) {
    throw Error(
        fmt::format("train.schedule.warmup: expected a share as 2%, steps as 200 or tokens as 10M "
                    "tokens, got '{}'",
                    schedule.warmup));
  }
  schedule.warmup_steps = *steps;
  lines.push_back(
      fmt::format("train.schedule.warmup_steps = {}: warmup = {}", *steps, schedule.warmup));
  schedule.warmup.clear();
  return lines;
}

}  // namespace dsmoe
