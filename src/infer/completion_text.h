#pragma once

#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "data/utf8.h"

namespace dsmoe {

/// The growing text of one completion: finds stop texts, and gives out for streaming only whole
/// UTF-8 characters that no stop text can take back. A stop text that holds the spelling of a
/// special token is found where that token was generated, which the text itself does not show.
class CompletionText {
 public:
  /// special: of the tokenizer; outlives this.
  explicit CompletionText(std::vector<std::string> stop, const SpecialTokens* special = nullptr);

  /// Adds the bytes of a token; returns what may be shown now.
  std::string push(std::string_view bytes);
  /// Adds a special token without showing its spelling; returns what may be shown now.
  std::string push_hidden(std::string_view spelling);
  /// Ends the completion; returns what was held back.
  std::string finish();

  /// True once a stop text came; the text ends before it.
  bool is_stopped() const { return is_stopped_; }
  const std::string& text() const { return text_; }

 private:
  // A special token in spelled_.
  struct Hidden {
    size_t begin;
    size_t end;
  };
  std::string show_up_to(size_t end);
  std::string find_stops();
  void find_spelled(size_t& first_stop, size_t& held_back) const;
  bool cuts_hidden(size_t at) const;
  size_t shown_bytes(size_t spelled) const;

  std::vector<std::string> stop_;
  std::vector<std::string> spelled_stop_;  // those of stop_ that hold a special token
  std::string text_;
  std::string spelled_;  // text_ with the special tokens; kept where spelled_stop_ has any
  std::vector<Hidden> hidden_;
  size_t n_shown_ = 0;  // bytes of text_ handed to stream_
  bool is_stopped_ = false;
  Utf8Stream stream_;
};

}  // namespace dsmoe
