#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/io.h"
#include "eval/likelihood.h"

namespace dsmoe {

/// A question: the text that follows the context is to be found among the choices. A minimal pair
/// has an empty context, two choices and the first as answer.
struct ChoiceItem {
  std::string context = {};
  std::vector<std::string> choices = {};
  int64_t answer = 0;      ///< index
  std::string group = {};  ///< empty: none
  std::string place = {};  ///< `file:line` that it was read from
  std::string error = {};  ///< why that line is no question, with its place; empty: it is one
};

/// Reads lines of JSON: `{"context": str, "choices": [str...], "answer": int}` or `{"good": str,
/// "bad": str}`, each with `"group": str` if it is to be counted by group. A line that is none
/// gives an item with an error. Throws Error for a file without lines and for one JSON array.
std::vector<ChoiceItem> read_choice_items(Io& io, const std::string& path);

/// Right answers of some, with the interval in which the true share lies at 95 % confidence.
/// Source: Wilson, "Probable inference" (1927), the score interval.
struct Accuracy {
  int64_t n_right = 0;
  int64_t n_items = 0;

  double share() const;
  double low() const;
  double high() const;
};

struct ChoiceScores {
  std::vector<double> log_likelihoods;  ///< nats, by choice
  std::vector<bool> are_greedy;         ///< by choice: each token of it is the most likely one
  bool is_right = false;                ///< the answer's is above all others'
  bool is_right_per_byte = false;       ///< the same after division by the choice's bytes
  std::string error = {};               ///< why the item was not scored, with its place
};

/// Accuracies are of the items without an error.
struct ChoiceResult {
  std::vector<ChoiceScores> items;  ///< fewer than asked after a stop
  Accuracy accuracy;
  Accuracy accuracy_per_byte;
  std::map<std::string, Accuracy> by_group;  ///< of the first kind

  std::vector<std::string> errors() const;  ///< of the items that were not scored
};

/// Scores every choice after its context; see score_continuations. An item that does not fit the
/// model (a choice above the context, without a token) gets an error; the others are scored.
ChoiceResult answer_choices(Transformer& model,
                            const Tokenizer& tokenizer,
                            const std::vector<ChoiceItem>& items,
                            const LikelihoodOptions& options);

}  // namespace dsmoe
