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

std::string CompletionText::push(std::string_view bytes) {
  text_ += bytes;
  size_t first_stop = std::string::npos;
  size_t held_back = 0;
  for (const auto& stop : stop_) {
    first_stop = std::min(first_stop, text_.find(stop, n_shown_));
    held_back = std::max(held_back, begun(text_, stop));
  }
  if (first_stop != std::string::npos) {
    is_stopped_ = true;
    text_.resize(first_stop);
    held_back = 0;
  }
  return show_up_to(text_.size() - held_back);
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
