#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/piece_pattern.h"
#include "formats/tokenizer_json.h"

namespace dsmoe {

/// Cuts a text into pieces, as the pre_tokenizer of a `tokenizer.json` does: each step cuts the
/// pieces of the step before it. Merges stay within a piece.
class PreTokenizer {
 public:
  using OnPiece = std::function<void(std::string_view piece)>;

  PreTokenizer() = default;
  /// Throws Error naming source_name for an unsupported pattern.
  PreTokenizer(const PreTokenizerSteps& steps, const std::string& source_name);

  /// Emits the pieces of a text in order. is_rest: the text continues one that was cut at a
  /// place().
  void split(std::string_view text, bool is_rest, const OnPiece& on_piece) const;

  /// Returns the last place of a text, above 0 and allowed by may_cut, where a piece begins
  /// whatever follows the text, and after which split(is_rest) gives the remaining pieces; 0 if
  /// there is none. may_join(a, b) is false for bytes that no merge joins: a piece may be cut
  /// between them.
  size_t place(std::string_view text,
               const std::function<bool(size_t)>& may_cut,
               const std::function<bool(char, char)>& may_join) const;

 private:
  struct Step {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::unique_ptr<PiecePattern> pattern;
  };

  struct Search {
    std::string_view text;
    const std::function<bool(size_t)>& may_cut;
    const std::function<bool(char, char)>& may_join;
    std::vector<size_t> places;
  };

  void split_from(size_t step, std::string_view text, const OnPiece& on_piece) const;
  void collect_places(size_t step, TextSpan open, Search& search) const;

  static constexpr size_t kNever = static_cast<size_t>(-1);
  std::vector<Step> steps_;
  size_t prefix_before_ = kNever;  // index of the step whose pieces get a blank in front
};

}  // namespace dsmoe
