#include "common/counts.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace dsmoe {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int suffix_exponent(char c) {
  switch (c) {
    case 'k':
    case 'K':
      return 3;
    case 'm':
    case 'M':
      return 6;
    case 'g':
    case 'G':
    case 'b':
    case 'B':
      return 9;
    case 't':
    case 'T':
      return 12;
    default:
      return 0;
  }
}

// Digits with single underscores between them; removes them from the text.
std::optional<std::string> take_digits(std::string_view& text) {
  std::string digits;
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if (is_digit(text[at])) {
      digits += text[at];
    } else if (text[at] != '_' || at == 0 || !is_digit(text[at - 1]) || at + 1 == text.size() ||
               !is_digit(text[at + 1])) {
      break;
    }
  }
  if (digits.empty()) return std::nullopt;
  text.remove_prefix(at);
  return digits;
}

std::optional<int> take_exponent(std::string_view& text) {
  if (text.empty() || (text[0] != 'e' && text[0] != 'E')) return 0;
  text.remove_prefix(text.size() > 1 && text[1] == '+' ? 2 : 1);
  int exponent = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), exponent);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(stop - text.data()));
  return exponent;
}

}  // namespace

std::optional<int64_t> parse_count(std::string_view text) {
  const bool is_negative = text.starts_with('-');
  if (is_negative) text.remove_prefix(1);
  auto digits = take_digits(text);
  if (!digits) return std::nullopt;
  int64_t exponent = 0;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    const auto fraction = take_digits(text);
    if (!fraction) return std::nullopt;
    *digits += *fraction;
    exponent -= static_cast<int64_t>(fraction->size());
  }
  const auto written = take_exponent(text);
  if (!written) return std::nullopt;
  exponent += *written;
  if (text.size() == 1 && suffix_exponent(text[0]) > 0) {
    exponent += suffix_exponent(text[0]);
    text.remove_prefix(1);
  }
  if (!text.empty()) return std::nullopt;
  for (; exponent < 0 && digits->size() > 1 && digits->back() == '0'; ++exponent) {
    digits->pop_back();
  }
  const bool is_zero = digits->find_first_not_of('0') == std::string::npos;
  if (is_zero) return 0;
  if (exponent < 0 || exponent > 18) return std::nullopt;
  digits->append(static_cast<size_t>(exponent), '0');
  if (is_negative) digits->insert(digits->begin(), '-');
  int64_t value = 0;
  const char* end = digits->data() + digits->size();
  const auto [stop, error] = std::from_chars(digits->data(), end, value);
  return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

std::string short_count(double count) {
  static constexpr std::array<const char*, 5> kSuffixes{"", "k", "M", "B", "T"};
  size_t i = 0;
  while (std::abs(count) >= 999.5 && i + 1 < kSuffixes.size()) {
    count /= 1000;
    ++i;
  }
  return fmt::format("{:.3g}{}", count, kSuffixes[i]);
}

}  // namespace dsmoe
