#include "infer/completion_text.h"

#include <algorithm>

namespace dsmoe {
namespace {

// Bytes at the end of `text` that are the beginning of `stop`.
size_t begun(const std::string& text, const std::string& stop) {
  for (size_t n = std::min(text.size(), stop.size()); n > 0; --n) {
    if (text.compare(text.size() - n, n, stop, 0, n) == 0) return n;
  }
  return 0;
}

}  // namespace

CompletionText::CompletionText(std::vector<std::string> stop, const SpecialTokens* special)
    : stop_(std::move(stop)) {
  if (special == nullptr) return;
  for (const auto& text : stop_) {
    const bool is_spelled =
        std::any_of(special->added.begin(), special->added.end(), [&](const AddedToken& token) {
          return token.special && text.find(token.content) != std::string::npos;
        });
    if (is_spelled) spelled_stop_.push_back(text);
  }
}

std::string CompletionText::push(std::string_view bytes) {
  text_ += bytes;
  if (!spelled_stop_.empty()) spelled_ += bytes;
  return find_stops();
}

std::string CompletionText::push_hidden(std::string_view spelling) {
  if (spelled_stop_.empty()) return {};
  hidden_.push_back({spelled_.size(), spelled_.size() + spelling.size()});
  spelled_ += spelling;
  return find_stops();
}

std::string CompletionText::find_stops() {
  size_t first_stop = std::string::npos;
  size_t held_back = 0;
  for (const auto& stop : stop_) {
    first_stop = std::min(first_stop, text_.find(stop, n_shown_));
    held_back = std::max(held_back, begun(text_, stop));
  }
  find_spelled(first_stop, held_back);
  if (first_stop != std::string::npos) {
    is_stopped_ = true;
    text_.resize(first_stop);
    held_back = 0;
  }
  return show_up_to(text_.size() - held_back);
}

// The same in the text with special tokens; results are in bytes of the text without them.
void CompletionText::find_spelled(size_t& first_stop, size_t& held_back) const {
  for (const auto& stop : spelled_stop_) {
    auto at = spelled_.find(stop);
    while (at != std::string::npos && (cuts_hidden(at) || cuts_hidden(at + stop.size()))) {
      at = spelled_.find(stop, at + 1);
    }
    if (at != std::string::npos) first_stop = std::min(first_stop, shown_bytes(at));
    const size_t begin = spelled_.size() - begun(spelled_, stop);
    held_back = std::max(held_back, text_.size() - shown_bytes(begin));
  }
}

bool CompletionText::cuts_hidden(size_t at) const {
  return std::any_of(hidden_.begin(), hidden_.end(), [&](const Hidden& token) {
    return token.begin < at && at < token.end;
  });
}

// Bytes of text_ before that place in spelled_.
size_t CompletionText::shown_bytes(size_t spelled) const {
  size_t hidden = 0;
  for (const auto& token : hidden_) {
    hidden += std::min(token.end, spelled) - std::min(token.begin, spelled);
  }
  return spelled - hidden;
}

std::string CompletionText::finish() {
  auto rest = show_up_to(text_.size());
  return rest + stream_.finish();
}

std::string CompletionText::show_up_to(size_t end) {
  if (end <= n_shown_) return {};
  const auto part = std::string_view(text_).substr(n_shown_, end - n_shown_);
  n_shown_ = end;
  return stream_.push(part);
}

}  // namespace dsmoe
