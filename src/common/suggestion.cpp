#include "common/suggestion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <numeric>

namespace dsmoe {
namespace {

std::string plain(std::string text) {
  std::erase_if(text, [](char c) { return c == '-' || c == '_'; });
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return text;
}

}  // namespace

size_t typing_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  std::iota(d[0].begin(), d[0].end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t other = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + other});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

std::string nearest_word(const std::string& given, const std::vector<std::string>& words) {
  constexpr size_t kLeastBeginning = 3;
  const auto wanted = plain(given);
  const std::string* nearest = nullptr;
  size_t least = std::max<size_t>(1, wanted.size() / 3) + 1;
  for (const auto& word : words) {
    const auto known = plain(word);
    const bool begins = (wanted.size() >= kLeastBeginning && known.starts_with(wanted)) ||
                        (known.size() >= kLeastBeginning && wanted.starts_with(known));
    const size_t distance = begins ? std::min<size_t>(known.size() != wanted.size(), least - 1)
                                   : typing_distance(wanted, known);
    if (distance >= least) continue;
    least = distance;
    nearest = &word;
  }
  return nearest == nullptr ? "" : *nearest;
}

std::string did_you_mean(const std::string& given, const std::vector<std::string>& words) {
  const auto word = nearest_word(given, words);
  return word.empty() ? "" : fmt::format("; did you mean '{}'?", word);
}

std::string join_or(const std::vector<std::string>& words) {
  if (words.size() < 2) return words.empty() ? "" : words.front();
  return fmt::format("{} or {}", fmt::join(words.begin(), words.end() - 1, ", "), words.back());
}

}  // namespace dsmoe
