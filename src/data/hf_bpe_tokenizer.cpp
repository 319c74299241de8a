#include "data/hf_bpe_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <queue>
#include <utility>

#include "common/error.h"
#include "data/nfc.h"
#include "data/utf8.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// A token of a piece that is being merged; a linked list over positions.
struct Symbol {
  int32_t id;  // kDead once it is merged into the one before it
  uint32_t previous;
  uint32_t next;
};
constexpr int32_t kDead = -1;
constexpr uint32_t kNone = static_cast<uint32_t>(-1);

struct Candidate {
  int32_t rank;
  uint32_t left;
  int32_t left_id;
  int32_t right_id;
  int32_t merged;
  // The queue hands out the lowest rank first, then the leftmost.
  bool operator<(const Candidate& other) const {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

size_t join_index(char left, char right) {
  return static_cast<size_t>(static_cast<unsigned char>(left)) << 8 |
         static_cast<unsigned char>(right);
}

// Returns the last place of a text where an NFC segment begins.
size_t last_nfc_segment(std::string_view text) {
  for (size_t at = text.size(); at-- > 0;) {
    if (!begins_character(text[at])) continue;
    auto rest = text.substr(at);
    if (begins_nfc_segment(next_code(rest))) return at;
  }
  return 0;
}

}  // namespace

HfBpeTokenizer::HfBpeTokenizer(std::string json,
                               const std::string& source_name,
                               std::optional<int32_t> bos,
                               std::optional<int32_t> eos)
    : HfBpeTokenizer(
          std::move(json),
          source_name,
          SpecialTokens{.bos = bos,
                        .adds_bos = bos.has_value(),
                        .eos = eos ? std::vector<int32_t>{*eos} : std::vector<int32_t>{}}) {}

HfBpeTokenizer::HfBpeTokenizer(std::string json,
                               const std::string& source_name,
                               SpecialTokens special)
    : json_(std::move(json)),
      fingerprint_("hf-bpe-" + hash64(json_)),
      file_(parse_bpe_tokenizer(json_,
                                source_name,
                                [&](const PreTokenizerSteps& steps) {
                                  pre_tokenizer_ = PreTokenizer(steps, source_name);
                                })),
      special_(std::move(special)) {
  if (!special_.bos && file_.bos_id) {
    special_.bos = file_.bos_id;
    special_.adds_bos = true;
  }
  for (size_t i = 0; i < file_.merges.size(); ++i) {
    const auto& merge = file_.merges[i];
    merges_.emplace(pair_key(merge.left, merge.right),
                    Merge{static_cast<int32_t>(i), merge.merged});
  }
  std::vector<bool> is_added(file_.token_bytes.size());
  for (const auto& token : file_.added) is_added[static_cast<size_t>(token.id)] = true;
  id_of_byte_.assign(256, -1);
  joins_.resize(1 << 16);
  for (size_t id = 0; id < file_.token_bytes.size(); ++id) {
    if (is_added[id]) continue;
    const auto& bytes = file_.token_bytes[id];
    if (bytes.size() == 1)
      id_of_byte_[static_cast<unsigned char>(bytes[0])] = static_cast<int32_t>(id);
    if (file_.ignore_merges) whole_pieces_.emplace(bytes, static_cast<int32_t>(id));
    for (size_t i = 1; i < bytes.size(); ++i) joins_[join_index(bytes[i - 1], bytes[i])] = true;
  }
  take_added(source_name);
}

// Joins the added tokens of the file and those given, which come first, and counts their ids.
void HfBpeTokenizer::take_added(const std::string& source_name) {
  const auto n_in_file = static_cast<int32_t>(file_.token_bytes.size());
  for (const auto& token : special_.added) {
    const auto end = n_in_file + static_cast<int64_t>(special_.added.size());
    if (token.id >= n_in_file && token.id >= end) {
      throw Error(
          fmt::format("{}: expected added tokens to follow the {} of the vocabulary, got {}",
                      source_name,
                      n_in_file,
                      token.id));
    }
    const auto index = static_cast<size_t>(token.id);
    if (index >= file_.token_bytes.size()) file_.token_bytes.resize(index + 1);
    if (token.id >= n_in_file) file_.token_bytes[index] = token.content;
  }
  for (const auto& token : file_.added) {
    if (special_.find(token.content) == nullptr) special_.added.push_back(token);
  }
  std::stable_sort(special_.added.begin(), special_.added.end(), [](const auto& a, const auto& b) {
    return a.id < b.id;
  });
  if (special_.bos && !has_token(*special_.bos)) {
    throw Error(fmt::format(
        "{}: BOS {} is outside the vocabulary of {}", source_name, *special_.bos, vocab_size()));
  }
  is_control_.resize(file_.token_bytes.size());
  for (const auto& token : special_.added) {
    is_control_[static_cast<size_t>(token.id)] = token.special;
  }
  if (special_.bos && special_.adds_bos) is_control_[static_cast<size_t>(*special_.bos)] = true;
  fingerprint_ += added_tokens_fingerprint({.added = beyond_file().added});
  added_ = AddedTokens(special_.added);
}

SpecialTokens HfBpeTokenizer::beyond_file() const {
  auto beyond = special_;
  std::erase_if(beyond.added, [&](const AddedToken& token) {
    return std::find(file_.added.begin(), file_.added.end(), token) != file_.added.end();
  });
  return beyond;
}

// Every token of the vocabulary has bytes; a gap between added tokens has none.
bool HfBpeTokenizer::has_token(int64_t id) const {
  return id >= 0 && id < vocab_size() && !file_.token_bytes[static_cast<size_t>(id)].empty();
}

HfBpeTokenizer::~HfBpeTokenizer() = default;

const HfBpeTokenizer::Merge* HfBpeTokenizer::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int32_t> HfBpeTokenizer::encode(std::string_view text) const {
  return encode_parts(text, /*is_rest=*/false);
}

std::vector<int32_t> HfBpeTokenizer::encode_rest(std::string_view text) const {
  return encode_parts(text, /*is_rest=*/true);
}

std::vector<int32_t> HfBpeTokenizer::encode_parts(std::string_view text, bool is_rest) const {
  const size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos) {
    throw Error(fmt::format("hf-bpe: expected UTF-8, got byte 0x{:02x} at offset {}",
                            static_cast<unsigned char>(text[bad]),
                            bad));
  }
  std::vector<int32_t> ids;
  for (const auto& part : added_.split(text, AddedTokens::Pass::kRaw)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    // Added tokens that are normalized are found in the normalized text.
    const auto normalized = file_.is_nfc ? to_nfc(part.text) : std::string();
    const std::string_view plain = file_.is_nfc ? std::string_view(normalized) : part.text;
    bool continues = is_rest && part.text.data() == text.data();
    for (const auto& inner : added_.split(plain, AddedTokens::Pass::kNormalized)) {
      if (inner.id >= 0) {
        ids.push_back(inner.id);
      } else {
        encode_plain(inner.text, continues, ids);
      }
      continues = false;
    }
  }
  return ids;
}

// A normalized text without added tokens. is_rest: it continues a text that divide() cut.
void HfBpeTokenizer::encode_plain(std::string_view text,
                                  bool is_rest,
                                  std::vector<int32_t>& ids) const {
  const auto cache = word_caches_.borrow();
  std::vector<int32_t> piece_ids;
  pre_tokenizer_.split(text, is_rest, [&](std::string_view piece) {
    const auto* known = cache->find(piece);
    if (known == nullptr) {
      piece_ids.clear();
      encode_piece(piece, piece_ids);
      cache->insert(piece, piece_ids);
      known = &piece_ids;
    }
    ids.insert(ids.end(), known->begin(), known->end());
  });
}

void HfBpeTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (file_.ignore_merges) {
    const auto whole = whole_pieces_.find(std::string(piece));
    if (whole != whole_pieces_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  // No merge reaches over two bytes that no token has side by side.
  for (size_t begin = 0, end = 0; begin < piece.size(); begin = end) {
    for (end = begin + 1; end < piece.size(); ++end) {
      if (!joins_[join_index(piece[end - 1], piece[end])]) break;
    }
    merge(piece.substr(begin, end - begin), ids);
  }
}

void HfBpeTokenizer::merge(std::string_view piece, std::vector<int32_t>& ids) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    symbols.push_back({id_of_byte_[static_cast<unsigned char>(piece[i])],
                       i == 0 ? kNone : static_cast<uint32_t>(i - 1),
                       i + 1 == piece.size() ? kNone : static_cast<uint32_t>(i + 1)});
  }
  std::priority_queue<Candidate> queue;
  const auto consider = [&](uint32_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const int32_t left_id = symbols[left].id;
    const int32_t right_id = symbols[symbols[left].next].id;
    if (const auto* merge = find_merge(left_id, right_id)) {
      queue.push({merge->rank, left, left_id, right_id, merge->merged});
    }
  };
  for (size_t i = 0; i < symbols.size(); ++i) consider(static_cast<uint32_t>(i));
  while (!queue.empty()) {
    const auto candidate = queue.top();
    queue.pop();
    auto& left = symbols[candidate.left];
    // A queued pair may have merged with another neighbour since.
    if (left.id != candidate.left_id || left.next == kNone) continue;
    auto& right = symbols[left.next];
    if (right.id != candidate.right_id) continue;
    left.id = candidate.merged;
    right.id = kDead;
    left.next = right.next;
    if (right.next != kNone) symbols[right.next].previous = candidate.left;
    consider(left.previous);
    consider(candidate.left);
  }
  for (uint32_t i = symbols.empty() ? kNone : 0; i != kNone; i = symbols[i].next) {
    ids.push_back(symbols[i].id);
  }
}

size_t HfBpeTokenizer::divide(std::string_view text) const {
  // Normalization may form such a token from text on both sides of a cut.
  if (file_.is_nfc && added_.has_normalized()) return 0;
  const size_t end = added_.certain_end(text);
  size_t begin = 0;  // after the last added token
  for (const auto& part : added_.split(text)) {
    const auto after = static_cast<size_t>(part.text.data() - text.data()) + part.text.size();
    if (part.id >= 0 && after <= end) begin = after;
  }
  if (begin < end) {
    const size_t at = place_in(text.substr(begin, end - begin));
    if (at > 0 && (!added_.looks_around() || added_.can_cut(text, begin + at))) return begin + at;
  }
  // A text after an added token is like a whole text: only at its beginning may a blank go in
  // front, and only a token that looks around may take more.
  return file_.steps.add_prefix_space || added_.looks_around() ? 0 : begin;
}

// Returns the last place where a text without added tokens and with an open end can be cut; or 0.
size_t HfBpeTokenizer::place_in(std::string_view text) const {
  const auto may_join = [&](char left, char right) {
    return file_.ignore_merges || joins_[join_index(left, right)];
  };
  if (!file_.is_nfc) {
    return pre_tokenizer_.place(
        text, [](size_t) { return true; }, may_join);
  }
  text = text.substr(0, last_nfc_segment(text));
  // The places where segments begin, before and after normalization.
  std::vector<std::pair<size_t, size_t>> segments;
  std::string normalized;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    auto rest = text.substr(begin);
    for (next_code(rest); !rest.empty();) {
      auto after = rest;
      if (begins_nfc_segment(next_code(after))) break;
      rest = after;
    }
    end = text.size() - rest.size();
    segments.emplace_back(normalized.size(), begin);
    normalized += to_nfc(text.substr(begin, end - begin));
  }
  const auto find = [&](size_t at) {
    return std::lower_bound(segments.begin(), segments.end(), std::pair{at, size_t{0}});
  };
  const auto may_cut = [&](size_t at) {
    const auto found = find(at);
    return found != segments.end() && found->first == at;
  };
  const size_t at = pre_tokenizer_.place(normalized, may_cut, may_join);
  return at == 0 ? 0 : find(at)->second;
}

std::string HfBpeTokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0) throw Error(fmt::format("hf-bpe: expected ids of 0 or more, got {}", id));
    const auto index = static_cast<size_t>(id);
    if (index < is_control_.size() && !is_control_[index]) text += file_.token_bytes[index];
  }
  return text;
}

}  // namespace dsmoe
