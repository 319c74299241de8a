#include "data/pre_tokenizer.h"

#include <algorithm>

#include "data/utf8.h"

namespace dsmoe {
namespace {

// A span of a text, and whether the pattern matches it.
struct Part {
  TextSpan span;
  bool is_match = false;
  bool is_removed = false;
};

// Covers all of the text: matches and the text between them.
std::vector<Part> parts_of(const PiecePattern& pattern, std::string_view text, bool invert) {
  std::vector<Part> parts;
  size_t done = 0;
  pattern.find(text, [&](TextSpan match) {
    if (match.begin != done) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  });
  if (done != text.size()) parts.push_back({{done, text.size()}, invert});
  return parts;
}

// Source: huggingface/tokenizers, tokenizer/normalizer.rs, NormalizedString::split.
std::vector<Part> behave(std::vector<Part> parts, SplitBehavior behavior) {
  using enum SplitBehavior;
  if (behavior == kRemoved) {
    for (auto& part : parts) part.is_removed = part.is_match;
  }
  if (behavior == kRemoved || behavior == kIsolated) return parts;
  const bool backwards = behavior == kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> merged;
  bool previous_match = false;
  for (const auto& part : parts) {
    const bool joins = behavior == kContiguous ? part.is_match == previous_match
                                               : part.is_match && !previous_match;
    previous_match = part.is_match;
    if (!joins || merged.empty()) {
      merged.push_back(part);
    } else if (backwards) {
      merged.back().span.begin = part.span.begin;
    } else {
      merged.back().span.end = part.span.end;
    }
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  return merged;
}

}  // namespace

PreTokenizer::PreTokenizer(const PreTokenizerSteps& steps, const std::string& source_name) {
  for (const auto& split : steps.splits) {
    steps_.push_back(
        {split.behavior, split.invert, std::make_unique<PiecePattern>(split.pattern, source_name)});
  }
  if (steps.add_prefix_space) prefix_before_ = steps.prefix_before;
}

void PreTokenizer::split(std::string_view text, bool is_rest, const OnPiece& on_piece) const {
  if (text.empty()) return;
  // If a blank is put before a whole text only, the rest of a text gets none.
  if (prefix_before_ != 0) return split_from(0, text, on_piece);
  if (is_rest || text.starts_with(' ')) return split_from(0, text, on_piece);
  split_from(0, " " + std::string(text), on_piece);
}

void PreTokenizer::split_from(size_t step, std::string_view text, const OnPiece& on_piece) const {
  if (text.empty()) return;
  if (step == prefix_before_ && step != 0 && !text.starts_with(' ')) {
    return split_from(step, " " + std::string(text), on_piece);
  }
  if (step == steps_.size()) return on_piece(text);
  const auto& [behavior, invert, pattern] = steps_[step];
  if (behavior == SplitBehavior::kIsolated) {
    size_t done = 0;
    pattern->find(text, [&](TextSpan match) {
      split_from(step + 1, text.substr(done, match.begin - done), on_piece);
      split_from(step + 1, text.substr(match.begin, match.end - match.begin), on_piece);
      done = match.end;
    });
    return split_from(step + 1, text.substr(done), on_piece);
  }
  for (const auto& part : behave(parts_of(*pattern, text, invert), behavior)) {
    if (part.is_removed) continue;
    split_from(step + 1, text.substr(part.span.begin, part.span.end - part.span.begin), on_piece);
  }
}

// Adds the places of a text with an open end: the ends of a step's certain matches, then, in the
// open text after them, the places of the next step. No earlier step matches in that text.
void PreTokenizer::collect_places(size_t step, TextSpan open, Search& search) const {
  const auto text = search.text.substr(open.begin, open.end - open.begin);
  const bool is_prefixed = step == prefix_before_ && step != 0;
  if (is_prefixed) return;
  if (step == steps_.size()) {
    for (size_t at = text.size(); at-- > 1;) {
      if (!begins_character(text[at]) || search.may_join(text[at - 1], text[at])) continue;
      if (!search.may_cut(open.begin + at)) continue;
      search.places.push_back(open.begin + at);
      return;
    }
    return;
  }
  const auto& pattern = *steps_[step].pattern;
  if (steps_[step].behavior != SplitBehavior::kIsolated || !pattern.restarts()) return;
  size_t done = 0;
  const size_t certain = pattern.find_certain(text, [&](TextSpan match) {
    if (match.begin > done) search.places.push_back(open.begin + match.begin);
    search.places.push_back(open.begin + match.end);
    done = match.end;
  });
  collect_places(step + 1, {open.begin + done, open.begin + certain}, search);
}

size_t PreTokenizer::place(std::string_view text,
                           const std::function<bool(size_t)>& may_cut,
                           const std::function<bool(char, char)>& may_join) const {
  Search search{text, may_cut, may_join, {}};
  collect_places(0, {0, text.size()}, search);
  if (prefix_before_ == 0 && !text.starts_with(' ')) {
    // It is not known here whether the text gets a blank in front: uses places that hold both ways.
    const std::string prefixed = " " + std::string(text);
    const std::function<bool(size_t)> may_cut_after = [&](size_t at) {
      return at > 1 && may_cut(at - 1);
    };
    Search other{prefixed, may_cut_after, may_join, {}};
    collect_places(0, {0, prefixed.size()}, other);
    std::erase_if(search.places, [&](size_t at) {
      return !std::binary_search(other.places.begin(), other.places.end(), at + 1);
    });
  }
  // The text before a cut ends there: its pieces must be the same as in the whole text.
  const auto sizes_of = [&](std::string_view part) {
    std::vector<size_t> sizes;
    split(part, /*is_rest=*/false, [&](std::string_view piece) { sizes.push_back(piece.size()); });
    return sizes;
  };
  const auto whole = sizes_of(text);
  constexpr int kMaxTries = 8;
  int n_tries = 0;
  for (auto at = search.places.rbegin(); at != search.places.rend(); ++at) {
    if (*at == 0 || *at >= text.size() || !may_cut(*at)) continue;
    const auto part = sizes_of(text.substr(0, *at));
    const bool is_last_cut = !part.empty() && part.size() <= whole.size();
    const size_t n = is_last_cut && steps_.empty() ? part.size() - 1 : part.size();
    if (is_last_cut &&
        std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(n), whole.begin()))
      return *at;
    if (++n_tries == kMaxTries) break;
  }
  return 0;
}

}  // namespace dsmoe
