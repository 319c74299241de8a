#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/added_tokens.h"

#include <pcre2.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace dsmoe {
namespace {

// Bytes of the UTF-8 character that ends before `end`.
size_t last_character(std::string_view text, size_t end) {
  size_t begin = end;
  while (begin > 0 && (static_cast<unsigned char>(text[begin - 1]) & 0xC0) == 0x80) --begin;
  return end - (begin > 0 ? begin - 1 : 0);
}

// Bytes of the UTF-8 character that begins at `begin`.
size_t next_character(std::string_view text, size_t begin) {
  size_t end = begin + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end - begin;
}

// Unicode's White_Space, one UTF-8 character.
bool is_white_space(std::string_view character) {
  if (character.size() == 1) {
    return character[0] == ' ' || (character[0] >= '\t' && character[0] <= '\r');
  }
  static constexpr std::string_view kWide[] = {"\xC2\x85",
                                               "\xC2\xA0",
                                               "\xE1\x9A\x80",
                                               "\xE2\x80\xA8",
                                               "\xE2\x80\xA9",
                                               "\xE2\x80\xAF",
                                               "\xE2\x81\x9F",
                                               "\xE3\x80\x80"};
  if (std::find(std::begin(kWide), std::end(kWide), character) != std::end(kWide)) return true;
  // U+2000 to U+200A.
  return character.starts_with("\xE2\x80") && character.size() == 3 &&
         static_cast<unsigned char>(character[2]) <= 0x8A;
}

size_t white_space_before(std::string_view text, size_t end) {
  size_t begin = end;
  while (begin > 0) {
    const size_t n = last_character(text, begin);
    if (!is_white_space(text.substr(begin - n, n))) break;
    begin -= n;
  }
  return begin;
}

size_t white_space_after(std::string_view text, size_t begin) {
  size_t end = begin;
  while (end < text.size()) {
    const size_t n = next_character(text, end);
    if (!is_white_space(text.substr(end, n))) break;
    end += n;
  }
  return end;
}

// \w of the library regex, one UTF-8 character.
bool is_word(std::string_view character) {
  using Code = std::unique_ptr<pcre2_code, void (*)(pcre2_code*)>;
  static const Code kWord = [] {
    const std::string_view pattern = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])";
    int error = 0;
    PCRE2_SIZE offset = 0;
    return Code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                              pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED,
                              &error,
                              &offset,
                              nullptr),
                pcre2_code_free);
  }();
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create_from_pattern(kWord.get(), nullptr), pcre2_match_data_free);
  return pcre2_match(kWord.get(),
                     reinterpret_cast<PCRE2_SPTR>(character.data()),
                     character.size(),
                     0,
                     0,
                     match.get(),
                     nullptr) >= 0;
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  const size_t before = begin == 0 ? 0 : last_character(text, begin);
  if (before > 0 && is_word(text.substr(begin - before, before))) return false;
  return end == text.size() || !is_word(text.substr(end, next_character(text, end)));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) {
    return a.content.size() > b.content.size();
  });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    by_first_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
    const auto& token = tokens_[i];
    looks_around_ = looks_around_ || token.lstrip || token.rstrip || token.single_word;
  }
  if (!tokens_.empty()) longest_ = tokens_.front().content.size();
}

bool AddedTokens::has_normalized() const {
  return std::any_of(
      tokens_.begin(), tokens_.end(), [](const auto& token) { return token.normalized; });
}

size_t AddedTokens::certain_end(std::string_view text) const {
  for (size_t at = text.size() - std::min(text.size(), longest_); at < text.size(); ++at) {
    const auto rest = text.substr(at);
    for (const size_t i : by_first_[static_cast<unsigned char>(text[at])]) {
      const std::string_view content = tokens_[i].content;
      if (content.size() > rest.size() && content.starts_with(rest)) return at;
    }
  }
  return text.size();
}

const AddedToken* AddedTokens::longest_at(std::string_view text, size_t at, Pass pass) const {
  for (const size_t i : by_first_[static_cast<unsigned char>(text[at])]) {
    const auto& token = tokens_[i];
    if (token.normalized != (pass == Pass::kNormalized)) continue;
    if (text.substr(at).starts_with(token.content)) return &token;
  }
  return nullptr;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, Pass pass) const {
  std::vector<Part> parts;
  size_t begin = 0;  // start of the text that is in no part yet
  for (size_t at = 0; at < text.size();) {
    const auto* token = longest_at(text, at, pass);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t first = at;
    size_t last = at + token->content.size();
    at = last;
    if (token->single_word && !is_single_word(text, first, last)) continue;
    if (token->lstrip) first = white_space_before(text, first);
    first = std::max(first, begin);
    if (token->rstrip) last = white_space_after(text, last);
    if (first > begin) parts.push_back({text.substr(begin, first - begin)});
    parts.push_back({text.substr(first, std::max(last, first) - first), token->id});
    begin = std::max(last, begin);
  }
  if (begin < text.size()) parts.push_back({text.substr(begin)});
  return parts;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text) const {
  std::vector<Part> parts;
  for (const auto& part : split(text, Pass::kRaw)) {
    if (part.id >= 0) {
      parts.push_back(part);
      continue;
    }
    const auto inner = split(part.text, Pass::kNormalized);
    parts.insert(parts.end(), inner.begin(), inner.end());
  }
  return parts;
}

bool AddedTokens::can_cut(std::string_view text, size_t at) const {
  if (tokens_.empty()) return true;
  // A token at the cut depends on the white space around it and on the characters beside it.
  const size_t left = looks_around_ ? white_space_before(text, at) : at;
  const size_t right = looks_around_ ? white_space_after(text, at) : at;
  if (looks_around_ && right == text.size()) return false;  // the text after it is not known yet
  const size_t end = looks_around_ ? right + 1 : at;
  for (size_t first = left - std::min(left, longest_); first < end; ++first) {
    for (const size_t i : by_first_[static_cast<unsigned char>(text[first])]) {
      const std::string_view content = tokens_[i].content;
      // A token that ends at the cut counts: a tokenizer may treat the text after it as a piece.
      if (first + content.size() < left) continue;
      if (text.substr(first, content.size()) == content.substr(0, text.size() - first)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace dsmoe
