// Transformers whose weights make them n-gram models, so that their perplexity can be counted by
// hand: a token's embedding is its own direction, attention and FFN add nothing, and the head holds
// the logarithms of the table.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>
#include <unordered_map>

#include "common/io.h"
#include "data/text_reader.h"
#include "data/tokenizer_files.h"
#include "eval/perplexity.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"
#include "support/tiny_model_config.h"

namespace dsmoe {
namespace {

constexpr int32_t kNgramBos = 256;  // of the byte tokenizer

// The model of p(next | token) = table[next][token]; `table` holds logarithms,
// [vocab_size, n_contexts]; tokens whose number is n_contexts or above are no contexts.
Transformer make_ngram_model(const at::Tensor& table) {
  auto config = tiny_model_config(table.size(0));
  config.d_model = table.size(1);
  config.norm_eps = 0;
  config.tie_embeddings = false;
  Transformer model(config);
  init_weights(model, 3, 0.3);
  const at::NoGradGuard no_grad;
  // A norm turns one 1 among d_model numbers into the root of d_model.
  const double norm = std::sqrt(static_cast<double>(config.d_model));
  for (auto& item : model->named_parameters()) {
    const auto& name = item.key();
    auto& weight = item.value();
    if (name == "embedding") {
      weight.copy_(at::eye(config.vocab_size, config.d_model));
    } else if (name == "head.weight") {
      weight.copy_(table / norm);
    } else if (name.find("down_proj") != std::string::npos ||
               name.find("o_proj") != std::string::npos) {
      weight.zero_();
    }
  }
  return model;
}

std::string some_words(uint64_t state, int n_words, int64_t& n_counted) {
  constexpr std::array<const char*, 9> kWords = {
      "the", "cat", "sat", "on", "a", "mat", "=", "<unk>", "re-read"};
  std::string text;
  for (int i = 0; i < n_words; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    text += kWords[(state >> 33) % kWords.size()];
    ++n_counted;
    if (i % 7 == 6) {
      text += " \n \n";  // two ends of lines, each a token of the protocol
      n_counted += 2;
    } else {
      text += " ";
    }
  }
  return text;
}

struct ByteBigrams {
  std::array<std::array<double, 257>, 257> counts{};  // [context][next]

  explicit ByteBigrams(const std::string& text) {
    int last = kNgramBos;
    for (const char c : text) {
      ++counts[static_cast<size_t>(last)][static_cast<unsigned char>(c)];
      last = static_cast<unsigned char>(c);
    }
  }
  // Add-one smoothing.
  double log_probability(size_t context, size_t next) const {
    double sum = 257;
    for (const double count : counts[context]) sum += count;
    return std::log((counts[context][next] + 1) / sum);
  }
  at::Tensor table() const {
    auto table = at::empty({257, 257}, at::kFloat);
    for (size_t next = 0; next < 257; ++next) {
      for (size_t context = 0; context < 257; ++context) {
        table.data_ptr<float>()[next * 257 + context] =
            static_cast<float>(log_probability(context, next));
      }
    }
    return table;
  }
};

std::string read_text(const std::string& path) {
  std::string text;
  read_documents(path, [&](std::string_view document) { text += document; });
  return text;
}

// WikiText-2's protocol: words between blanks, and one token for each end of a line.
std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text) {
    if (c != ' ' && c != '\n') {
      word += c;
      continue;
    }
    if (!word.empty()) words.push_back(std::exchange(word, {}));
    if (c == '\n') words.emplace_back("<eos>");
  }
  return words;
}

// Bigrams of words with interpolated Witten-Bell smoothing.
class WordBigrams {
 public:
  explicit WordBigrams(const std::vector<std::string>& words) {
    int64_t last = number_of("<eos>");
    for (const auto& word : words) {
      const int64_t next = number_of(word);
      if (pairs_[last][next]++ == 0) ++n_types_[last];
      ++n_contexts_[last];
      ++counts_[next];
      ++n_words_;
      last = next;
    }
  }
  int64_t n_types() const { return static_cast<int64_t>(numbers_.size()); }
  int64_t number_of(const std::string& word) {
    return numbers_.try_emplace(word, n_types()).first->second;
  }
  double unigram(int64_t word) const {
    // Every type of the closed vocabulary occurs: types / (words + types) is spread over them.
    return (static_cast<double>(counts_.at(word)) + 1) / static_cast<double>(n_words_ + n_types());
  }
  double probability(int64_t context, int64_t next) const {
    const auto& of_context = pairs_.at(context);
    const auto it = of_context.find(next);
    const double count = it == of_context.end() ? 0 : static_cast<double>(it->second);
    const auto types = static_cast<double>(n_types_.at(context));
    return (count + types * unigram(next)) / (static_cast<double>(n_contexts_.at(context)) + types);
  }

 private:
  std::unordered_map<std::string, int64_t> numbers_;
  std::unordered_map<int64_t, std::unordered_map<int64_t, int64_t>> pairs_;
  std::unordered_map<int64_t, int64_t> n_types_, n_contexts_, counts_;
  int64_t n_words_ = 0;
};

double ngram_nats(const WordBigrams& bigrams, const std::vector<int64_t>& ids, size_t n) {
  double sum = 0;
  for (size_t i = 1; i <= n; ++i) sum -= std::log(bigrams.probability(ids[i - 1], ids[i]));
  return sum;
}

std::vector<int64_t> ids_of(WordBigrams& bigrams, const std::vector<std::string>& words) {
  std::vector<int64_t> ids = {bigrams.number_of("<eos>")};
  for (const auto& word : words) ids.push_back(bigrams.number_of(word));
  return ids;
}

}  // namespace

TEST_CASE("word perplexity of a model of byte bigrams equals the count by hand") {
  int64_t n_counted = 0;
  const ByteBigrams bigrams(some_words(1, 700, n_counted));
  n_counted = 0;
  const auto text = some_words(2, 400, n_counted);
  double expected = 0;
  size_t last = kNgramBos;
  for (const char c : text) {
    expected -= bigrams.log_probability(last, static_cast<unsigned char>(c));
    last = static_cast<unsigned char>(c);
  }
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("text.txt"), text);
  const auto tokenizer = make_tokenizer("bytes", {});
  const auto eval_text = read_eval_text(directory.file("text.txt"), *tokenizer, false, 24);
  CHECK(eval_text.n_words == n_counted);
  auto model = make_ngram_model(bigrams.table());
  // No context but the last token counts, so neither may window and stride.
  for (const auto& [window, stride] : {std::pair(24, 24), std::pair(24, 5), std::pair(1, 1)}) {
    const auto result =
        evaluate_perplexity(model, eval_text, {.window = window, .stride = stride, .batch = 16});
    CAPTURE(window, stride);
    CHECK(result.tokens_scored == static_cast<int64_t>(text.size()));
    CHECK(result.nats_total == Approx(expected).epsilon(1e-6));
    CHECK(std::exp(result.nats_total / static_cast<double>(eval_text.n_words)) ==
          Approx(std::exp(expected / static_cast<double>(n_counted))).epsilon(1e-5));
  }
}

TEST_CASE("WikiText-2: words and n-gram perplexities are the published ones", "[eval][wikitext]") {
  const std::string folder = "wikitext-2/";
  const auto train = shared_data(folder + "train.txt.gz");
  if (train.empty()) return;
  WordBigrams bigrams(words_of(read_text(train)));
  REQUIRE(bigrams.n_types() == 33278);
  const auto perplexity = [&](const std::string& split, int64_t n_words) {
    const auto text = read_text(shared_data(folder + split));
    CHECK(count_words(text) == n_words);
    const auto ids = ids_of(bigrams, words_of(text));
    REQUIRE(static_cast<int64_t>(ids.size()) == n_words + 1);
    return std::exp(ngram_nats(bigrams, ids, ids.size() - 1) / static_cast<double>(n_words));
  };
  CHECK(perplexity("valid.txt", 217646) == Approx(311.3).margin(0.05));
  CHECK(perplexity("test.txt", 245569) == Approx(288.1).margin(0.05));

  // The beginning of it through a model; words are numbered so that its contexts come first.
  auto ids = ids_of(bigrams, words_of(read_text(shared_data(folder + "valid.txt"))));
  constexpr size_t kScored = 400;
  ids.resize(kScored + 1);
  std::map<int64_t, int64_t> renumbered;
  std::vector<int64_t> contexts;
  for (size_t i = 0; i < kScored; ++i) {
    if (renumbered.try_emplace(ids[i], static_cast<int64_t>(contexts.size())).second) {
      contexts.push_back(ids[i]);
    }
  }
  auto order = contexts;  // old number by new one
  for (int64_t word = 0; word < bigrams.n_types(); ++word) {
    if (renumbered.try_emplace(word, static_cast<int64_t>(order.size())).second) {
      order.push_back(word);
    }
  }
  const auto n_contexts = static_cast<int64_t>(contexts.size());
  auto table = at::empty({bigrams.n_types(), n_contexts}, at::kFloat);
  for (int64_t next = 0; next < bigrams.n_types(); ++next) {
    for (int64_t context = 0; context < n_contexts; ++context) {
      table.data_ptr<float>()[next * n_contexts + context] =
          static_cast<float>(std::log(bigrams.probability(contexts[static_cast<size_t>(context)],
                                                          order[static_cast<size_t>(next)])));
    }
  }
  EvalText text;
  auto& sequence = text.sequences.emplace_back();
  for (const int64_t id : ids) sequence.push_back(static_cast<int32_t>(renumbered.at(id)));
  auto model = make_ngram_model(table);
  const auto result = evaluate_perplexity(model, text, {});
  CHECK(result.tokens_scored == kScored);
  CHECK(result.nats_total == Approx(ngram_nats(bigrams, ids, kScored)).epsilon(1e-6));
}

}  // namespace dsmoe
