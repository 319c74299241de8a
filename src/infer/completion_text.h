#pragma once

#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "data/utf8.h"

namespace dsmoe {

/// The growing text of one completion: finds stop texts, and gives out for streaming only whole
/// UTF-8 characters that no stop text can take back.
class CompletionText {
 public:
  explicit CompletionText(std::vector<std::string> stop) : stop_(std::move(stop)) {}

  /// Adds bytes; returns what may be shown now.
  std::string push(std::string_view bytes);
  /// Ends the completion; returns what was held back.
  std::string finish();

  /// True once a stop text came; the text ends before it.
  bool is_stopped() const { return is_stopped_; }
  const std::string& text() const { return text_; }

 private:
  std::string show_up_to(size_t end);

  std::vector<std::string> stop_;
  std::string text_;
  size_t n_shown_ = 0;  // bytes of text_ handed to stream_
  bool is_stopped_ = false;
  Utf8Stream stream_;
};

}  // namespace dsmoe
