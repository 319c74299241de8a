#include "train/train_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/error.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

std::string to_hex(const std::string& bytes) {
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const char byte : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return hex;
}

std::string from_hex(const std::string& hex, const std::string& source_name) {
  const auto digit = [&](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    throw Error(fmt::format("{}: random_state: expected hex digits, got '{}'", source_name, c));
  };
  if (hex.size() % 2 != 0) {
    throw Error(fmt::format("{}: random_state: expected pairs of hex digits", source_name));
  }
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  }
  return bytes;
}

}  // namespace

void note_best(TrainState& state) {
  if (state.step == 0 || state.validated_step != state.step) return;
  if (state.best_step > 0 && state.validation_loss >= state.best_loss) return;
  state.best_step = state.step;
  state.best_loss = state.validation_loss;
}

std::string state_to_json(const TrainState& state) {
  const nlohmann::ordered_json json = {{"run_id", state.run_id},
                                       {"step", state.step},
                                       {"position", state.position},
                                       {"tokens", state.tokens},
                                       {"validated_step", state.validated_step},
                                       {"validation_loss", state.validation_loss},
                                       {"best_step", state.best_step},
                                       {"best_loss", state.best_loss},
                                       {"skipped_steps", state.guard.skipped_steps},
                                       {"skipped_in_a_row", state.guard.skipped_in_a_row},
                                       {"guard_losses", state.guard.losses},
                                       {"guard_gradient_norms", state.guard.gradient_norms},
                                       {"random_state", to_hex(state.random_state)}};
  return json.dump(2) + "\n";
}

TrainState parse_state(const std::string& text, const std::string& source_name) {
  const auto json = parse_json(text, source_name, kMaxBytes);
  try {
    TrainState state;
    json.at("run_id").get_to(state.run_id);
    json.at("step").get_to(state.step);
    json.at("position").get_to(state.position);
    json.at("tokens").get_to(state.tokens);
    // Checkpoints before the guards lack these.
    state.validated_step = json.value("validated_step", state.validated_step);
    state.validation_loss = json.value("validation_loss", state.validation_loss);
    state.best_step = json.value("best_step", state.best_step);
    state.best_loss = json.value("best_loss", state.best_loss);
    state.guard.skipped_steps = json.value("skipped_steps", state.guard.skipped_steps);
    state.guard.skipped_in_a_row = json.value("skipped_in_a_row", state.guard.skipped_in_a_row);
    state.guard.losses = json.value("guard_losses", state.guard.losses);
    state.guard.gradient_norms = json.value("guard_gradient_norms", state.guard.gradient_norms);
    state.random_state = from_hex(json.at("random_state").get<std::string>(), source_name);
    return state;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: not a training state: {}", source_name, error.what()));
  }
}

}  // namespace dsmoe
