#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/hf_bpe_tokenizer.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <queue>
#include <utility>

#include "common/error.h"
#include "data/utf8.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// A token of a piece that is being merged; a linked list over positions.
struct Symbol {
  int32_t id;
  size_t previous;
  size_t next;
  bool alive = true;
};
constexpr size_t kNone = static_cast<size_t>(-1);

struct Candidate {
  int32_t rank;
  size_t left;
  int32_t left_id;
  int32_t right_id;
  int32_t merged;
  // The queue hands out the lowest rank first, then the leftmost.
  bool operator<(const Candidate& other) const {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

}  // namespace

struct HfBpeTokenizer::Pattern {
  Pattern(const std::string& expression, const std::string& source_name) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                         expression.size(),
                         PCRE2_UTF | PCRE2_UCP,
                         &error,
                         &offset,
                         nullptr);
    if (code == nullptr) {
      throw Error(fmt::format("{}: pattern: {} at offset {}",
                              source_name,
                              pcre2_message(error),
                              static_cast<size_t>(offset)));
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it, matching is only slower
  }
  ~Pattern() { pcre2_code_free(code); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  pcre2_code* code = nullptr;
};

HfBpeTokenizer::HfBpeTokenizer(std::string json,
                               const std::string& source_name,
                               std::optional<int32_t> bos,
                               std::optional<int32_t> eos)
    : json_(std::move(json)),
      fingerprint_("hf-bpe-" + hash64(json_)),
      file_(parse_bpe_tokenizer(json_,
                                source_name,
                                [&](const std::string& pattern) {
                                  pattern_ = std::make_unique<Pattern>(pattern, source_name);
                                })),
      bos_(bos ? bos : file_.bos_id),
      eos_(eos) {
  for (const auto& id : {bos_, eos_}) {
    if (id && (*id < 0 || *id >= vocab_size())) {
      throw Error(fmt::format(
          "{}: BOS or EOS {} is outside the vocabulary of {}", source_name, *id, vocab_size()));
    }
  }
  is_control_.resize(file_.token_bytes.size());
  for (const auto& token : file_.added) is_control_[static_cast<size_t>(token.id)] = token.special;
  for (const auto& id : {bos_, eos_}) {
    if (id) is_control_[static_cast<size_t>(*id)] = true;
  }
  // Longest first: of two added tokens that begin alike, the longer one is meant.
  std::stable_sort(file_.added.begin(), file_.added.end(), [](const auto& a, const auto& b) {
    return a.content.size() > b.content.size();
  });
  for (size_t i = 0; i < file_.merges.size(); ++i) {
    const auto& merge = file_.merges[i];
    merges_.emplace(pair_key(merge.left, merge.right),
                    Merge{static_cast<int32_t>(i), merge.merged});
  }
  std::vector<bool> is_added(file_.token_bytes.size());
  for (const auto& token : file_.added) is_added[static_cast<size_t>(token.id)] = true;
  id_of_byte_.assign(256, -1);
  for (size_t id = 0; id < file_.token_bytes.size(); ++id) {
    if (is_added[id]) continue;
    const auto& bytes = file_.token_bytes[id];
    if (bytes.size() == 1)
      id_of_byte_[static_cast<unsigned char>(bytes[0])] = static_cast<int32_t>(id);
    if (file_.ignore_merges) whole_pieces_.emplace(bytes, static_cast<int32_t>(id));
  }
}

HfBpeTokenizer::~HfBpeTokenizer() = default;

const HfBpeTokenizer::Merge* HfBpeTokenizer::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int32_t> HfBpeTokenizer::encode(std::string_view text) const {
  const size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos) {
    throw Error(fmt::format("hf-bpe: expected UTF-8, got byte 0x{:02x} at offset {}",
                            static_cast<unsigned char>(text[bad]),
                            bad));
  }
  std::vector<int32_t> ids;
  size_t begin = 0;
  const auto flush = [&](size_t end) {
    if (end > begin) encode_plain(text.substr(begin, end - begin), ids);
  };
  std::array<bool, 256> may_begin{};
  for (const auto& token : file_.added)
    may_begin[static_cast<unsigned char>(token.content[0])] = true;
  for (size_t at = 0; at < text.size();) {
    const AddedToken* found = nullptr;
    if (may_begin[static_cast<unsigned char>(text[at])]) {
      for (const auto& token : file_.added) {
        if (!text.substr(at).starts_with(token.content)) continue;
        found = &token;
        break;
      }
    }
    if (found == nullptr) {
      ++at;
      continue;
    }
    flush(at);
    ids.push_back(found->id);
    at += found->content.size();
    begin = at;
  }
  flush(text.size());
  return ids;
}

// A text without added tokens: the matches of the pattern, and what lies between them.
void HfBpeTokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  std::string prefixed;
  if (file_.add_prefix_space && !text.starts_with(' ')) {
    prefixed = " " + std::string(text);
    text = prefixed;
  }
  if (!pattern_) return encode_piece(text, ids);
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create_from_pattern(pattern_->code, nullptr), pcre2_match_data_free);
  size_t done = 0;
  for (size_t from = 0; from < text.size();) {
    const int result = pcre2_match(pattern_->code,
                                   reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(),
                                   from,
                                   PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                   match.get(),
                                   nullptr);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      throw Error(fmt::format("hf-bpe: the tokenizer's pattern failed: {}", pcre2_message(result)));
    }
    const auto* offsets = pcre2_get_ovector_pointer(match.get());
    if (offsets[0] > done) encode_piece(text.substr(done, offsets[0] - done), ids);
    if (offsets[1] <= offsets[0]) break;  // a look-behind that moved the start; no progress
    encode_piece(text.substr(offsets[0], offsets[1] - offsets[0]), ids);
    done = from = offsets[1];
  }
  if (done < text.size()) encode_piece(text.substr(done), ids);
}

void HfBpeTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (file_.ignore_merges) {
    const auto whole = whole_pieces_.find(std::string(piece));
    if (whole != whole_pieces_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    symbols.push_back({id_of_byte_[static_cast<unsigned char>(piece[i])],
                       i == 0 ? kNone : i - 1,
                       i + 1 == piece.size() ? kNone : i + 1});
  }
  std::priority_queue<Candidate> queue;
  const auto consider = [&](size_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const int32_t left_id = symbols[left].id;
    const int32_t right_id = symbols[symbols[left].next].id;
    if (const auto* merge = find_merge(left_id, right_id)) {
      queue.push({merge->rank, left, left_id, right_id, merge->merged});
    }
  };
  for (size_t i = 0; i < symbols.size(); ++i) consider(i);
  while (!queue.empty()) {
    const auto candidate = queue.top();
    queue.pop();
    auto& left = symbols[candidate.left];
    // What was queued may have been merged with another neighbour since.
    if (!left.alive || left.id != candidate.left_id || left.next == kNone) continue;
    auto& right = symbols[left.next];
    if (right.id != candidate.right_id) continue;
    left.id = candidate.merged;
    right.alive = false;
    left.next = right.next;
    if (right.next != kNone) symbols[right.next].previous = candidate.left;
    consider(left.previous);
    consider(candidate.left);
  }
  for (size_t i = symbols.empty() ? kNone : 0; i != kNone; i = symbols[i].next) {
    ids.push_back(symbols[i].id);
  }
}

std::string HfBpeTokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      throw Error(fmt::format("hf-bpe: expected ids in [0, {}), got {}", vocab_size(), id));
    }
    const auto index = static_cast<size_t>(id);
    if (!is_control_[index]) text += file_.token_bytes[index];
  }
  return text;
}

}  // namespace dsmoe
