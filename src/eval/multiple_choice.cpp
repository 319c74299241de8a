#include "eval/multiple_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/text_lines.h"

namespace dsmoe {
namespace {

constexpr double kQuantile = 1.959963984540054;  // of the normal distribution, 95 % two-sided

ChoiceItem parse_item(const nlohmann::json& json) {
  ChoiceItem item;
  item.group = json.value("group", "");
  if (json.contains("good")) {
    item.choices = {json.at("good").get<std::string>(), json.at("bad").get<std::string>()};
    return item;
  }
  item.context = json.value("context", "");
  item.choices = json.at("choices").get<std::vector<std::string>>();
  item.answer = json.at("answer").get<int64_t>();
  const auto n_choices = static_cast<int64_t>(item.choices.size());
  if (n_choices < 2 || item.answer < 0 || item.answer >= n_choices) {
    throw Error(fmt::format("expected two choices or more and an answer among them, got {} and {}",
                            n_choices,
                            item.answer));
  }
  return item;
}

// Above every other; a tie is no answer.
bool is_highest(const std::vector<double>& scores, int64_t index) {
  for (size_t i = 0; i < scores.size(); ++i) {
    if (i != static_cast<size_t>(index) && !(scores[static_cast<size_t>(index)] > scores[i])) {
      return false;
    }
  }
  return true;
}

ChoiceScores judge(const ChoiceItem& item, const Likelihood* likelihoods) {
  ChoiceScores scores;
  std::vector<double> per_byte;
  for (size_t i = 0; i < item.choices.size(); ++i) {
    scores.log_likelihoods.push_back(likelihoods[i].log_likelihood);
    scores.are_greedy.push_back(likelihoods[i].is_greedy);
    per_byte.push_back(likelihoods[i].log_likelihood / static_cast<double>(item.choices[i].size()));
  }
  scores.is_right = is_highest(scores.log_likelihoods, item.answer);
  scores.is_right_per_byte = is_highest(per_byte, item.answer);
  return scores;
}

// Returns why an item cannot be scored, with its place; empty: its choices were added.
std::string add_choices(const ChoiceItem& item,
                        const Tokenizer& tokenizer,
                        const ModelConfig& config,
                        std::vector<Continuation>& continuations) {
  try {
    for (const auto& choice : item.choices) {
      continuations.push_back(encode_continuation(tokenizer, item.context, choice));
      check_continuation(continuations.back(), config);
    }
  } catch (const Error& error) {
    return item.place.empty() ? error.what() : fmt::format("{}: {}", item.place, error.what());
  }
  return {};
}

void add(Accuracy& accuracy, bool is_right) {
  accuracy.n_right += is_right ? 1 : 0;
  accuracy.n_items += 1;
}

// Of the Wilson interval, side -1 or +1.
double bound(const Accuracy& accuracy, double side) {
  const auto n = static_cast<double>(accuracy.n_items);
  const double p = accuracy.share();
  const double z2 = kQuantile * kQuantile;
  const double spread = std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return (p + z2 / (2 * n) + side * kQuantile * spread) / (1 + z2 / n);
}

}  // namespace

double Accuracy::share() const {
  return n_items > 0 ? static_cast<double>(n_right) / static_cast<double>(n_items) : 0.0;
}
double Accuracy::low() const { return n_items > 0 ? std::max(bound(*this, -1), 0.0) : 0.0; }
double Accuracy::high() const { return n_items > 0 ? std::min(bound(*this, 1), 1.0) : 1.0; }

std::vector<std::string> ChoiceResult::errors() const {
  std::vector<std::string> errors;
  for (const auto& item : items) {
    if (!item.error.empty()) errors.push_back(item.error);
  }
  return errors;
}

std::vector<ChoiceItem> read_choice_items(Io& io, const std::string& path) {
  TextFile file(io, path);
  std::vector<ChoiceItem> items;
  read_json_lines(file, [&](const TextLine& line) {
    ChoiceItem item;
    try {
      item = parse_item(parse_json_line(line));
    } catch (const std::exception& error) {
      item.error = fmt::format(
          "{}: expected a question with choices and answer, or a good and a bad text: {}",
          line.place,
          error.what());
    }
    item.place = line.place;
    items.push_back(std::move(item));
  });
  if (items.empty()) throw Error(path + ": expected at least one question, got none");
  return items;
}

ChoiceResult answer_choices(Transformer& model,
                            const Tokenizer& tokenizer,
                            const std::vector<ChoiceItem>& items,
                            const LikelihoodOptions& options) {
  std::vector<Continuation> continuations;
  std::vector<std::string> errors;
  for (const auto& item : items) {
    const size_t n_before = continuations.size();
    errors.push_back(item.error);
    if (item.error.empty()) {
      errors.back() = add_choices(item, tokenizer, model->config(), continuations);
    }
    if (!errors.back().empty()) continuations.resize(n_before);
  }
  const auto likelihoods = score_continuations(model, continuations, options);
  ChoiceResult result;
  size_t first = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto& item = items[i];
    if (!errors[i].empty()) {
      result.items.emplace_back().error = errors[i];
      continue;
    }
    if (first + item.choices.size() > likelihoods.size()) break;
    const auto& scores = result.items.emplace_back(judge(item, likelihoods.data() + first));
    add(result.accuracy, scores.is_right);
    add(result.accuracy_per_byte, scores.is_right_per_byte);
    if (!item.group.empty()) add(result.by_group[item.group], scores.is_right);
    first += item.choices.size();
  }
  return result;
}

}  // namespace dsmoe
