#include "eval/eval_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/error.h"
#include "data/text_lines.h"
#include "data/text_reader.h"

namespace dsmoe {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

std::string_view strip(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

EvalText from_shards(const std::string& path,
                     const Tokenizer& tokenizer,
                     bool documents,
                     int64_t max_tokens) {
  const TokenDataset dataset(path);
  if (dataset.tokenizer().fingerprint() != tokenizer.fingerprint()) {
    throw Error(fmt::format("{}: expected shards of tokenizer {}, got {}",
                            path,
                            tokenizer.fingerprint(),
                            dataset.tokenizer().fingerprint()));
  }
  EvalText text;
  auto starts =
      documents ? dataset.document_starts(0, dataset.n_tokens()) : std::vector<int64_t>{0};
  starts.push_back(dataset.n_tokens());
  const bool cuts = documents && max_tokens > 0;
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    const int64_t size = starts[i + 1] - starts[i];
    auto& sequence =
        text.sequences.emplace_back(static_cast<size_t>(cuts ? std::min(size, max_tokens) : size));
    dataset.copy(starts[i], sequence);
    if (cuts) text.n_bytes += static_cast<int64_t>(tokenizer.decode(sequence).size());
  }
  if (!cuts) text.n_bytes = dataset.n_bytes();
  return text;
}

void add_document(EvalText& text,
                  std::string_view document,
                  const Tokenizer& tokenizer,
                  bool alone,
                  int64_t max_tokens) {
  if (alone) document = strip(document);
  if (alone || text.sequences.empty()) text.sequences.emplace_back();
  auto& sequence = text.sequences.back();
  const auto ids = tokenizer.encode_with_bos(document);
  sequence.insert(sequence.end(), ids.begin(), ids.end());
  text.n_words += count_words(document);
  const auto limit = static_cast<size_t>(max_tokens);
  if (alone && max_tokens > 0 && sequence.size() > limit) {
    sequence.resize(limit);
    text.n_bytes += static_cast<int64_t>(tokenizer.decode(sequence).size());
  } else {
    text.n_bytes += static_cast<int64_t>(document.size());
  }
}

}  // namespace

void append_group(EvalText& text, EvalText other) {
  const size_t group =
      text.sequences.empty() ? 0 : 1 + (text.groups.empty() ? 0 : text.groups.back());
  text.groups.resize(text.sequences.size(), 0);
  text.groups.resize(text.sequences.size() + other.sequences.size(), group);
  for (auto& sequence : other.sequences) text.sequences.push_back(std::move(sequence));
  if (group == 1) text.group_bytes = {text.n_bytes};
  if (group > 0) text.group_bytes.push_back(other.n_bytes);
  text.n_bytes += other.n_bytes;
  // Shards hold no words: then the whole's number is not known either.
  const bool is_known = group == 0 || (text.n_words > 0 && other.n_words > 0);
  text.n_words = is_known ? text.n_words + other.n_words : 0;
  text.unscored_id = other.unscored_id;
}

int64_t count_words(std::string_view text) {
  int64_t count = 0;
  bool in_word = false;
  for (const char c : text) {
    if (c == '\n') ++count;
    if (!is_blank(c) && !in_word) ++count;
    in_word = !is_blank(c);
  }
  return count;
}

EvalText read_eval_text(const std::string& path,
                        const Tokenizer& tokenizer,
                        bool documents,
                        int64_t max_tokens,
                        const TextFormat& format) {
  EvalText text;
  if (std::filesystem::is_directory(path)) {
    text = from_shards(path, tokenizer, documents, max_tokens);
  } else {
    warn_of_json_as_text(posix_io(), path, format.field);
    const auto add = [&](std::string_view document) {
      add_document(text, document, tokenizer, documents, max_tokens);
    };
    read_documents(path, add, format);
  }
  const auto& special = tokenizer.special_tokens();
  text.unscored_id = special.adds_bos ? special.bos.value_or(-1) : -1;
  return text;
}

}  // namespace dsmoe
