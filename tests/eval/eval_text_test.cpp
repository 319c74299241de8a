#include "eval/eval_text.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "data/tokenize.h"
#include "data/tokenizer_files.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

std::string write_text(const TemporaryDirectory& directory, const std::string& bytes) {
  write_file(posix_io(), directory.file("text.txt"), bytes);
  return directory.file("text.txt");
}

}  // namespace

TEST_CASE("words are white-space words plus line ends") {
  CHECK(count_words("") == 0);
  CHECK(count_words("one") == 1);
  CHECK(count_words(" one  two\t\n") == 3);
  CHECK(count_words("\n\n = Heading = \n") == 3 + 3);
  CHECK(count_words("a\r\nb") == 3);
}

TEST_CASE("WikiText-2 has the published numbers of words") {
  const std::string directory = DSMOE_SOURCE_DIR "/../shared/data/wikitext-2/";
  for (const auto& [name, n_words] :
       {std::pair("valid.txt", 217'646), std::pair("test.txt", 245'569)}) {
    if (!std::filesystem::exists(directory + name)) {
      WARN("skipped: " << directory << name << " is not there");
      continue;
    }
    CHECK(read_eval_text(directory + name, ByteTokenizer(), false, 0).n_words == n_words);
  }
}

TEST_CASE("evaluation text: one sequence, or one per document cut to the context") {
  const TemporaryDirectory directory;
  const auto path = write_text(directory, "ab c<|endoftext|>d\xC3\xA9\n");
  const auto whole = read_eval_text(path, ByteTokenizer(), false, 3);
  CHECK(whole.sequences == std::vector<Ids>{{256, 'a', 'b', ' ', 'c', 256, 'd', 0xC3, 0xA9, '\n'}});
  CHECK(whole.n_bytes == 8);
  CHECK(whole.n_words == 4);
  CHECK(whole.unscored_id == 256);

  const auto apart = read_eval_text(path, ByteTokenizer(), true, 4);
  CHECK(apart.sequences == std::vector<Ids>{{256, 'a', 'b', ' '}, {256, 'd', 0xC3, 0xA9}});
  CHECK(apart.n_bytes == 3 + 3);
  const auto stripped = write_text(directory, "\n ab\n<|endoftext|>\r\nc d\n\n");
  CHECK(read_eval_text(stripped, ByteTokenizer(), true, 0).sequences ==
        std::vector<Ids>{{256, 'a', 'b'}, {256, 'c', ' ', 'd'}});
}

TEST_CASE("evaluation text from shards is the text's own; another tokenizer's shards are refused") {
  const TemporaryDirectory directory;
  TokenizeOptions options;
  options.inputs = {write_text(directory, "ab c<|endoftext|>de")};
  options.out = directory.file("shards");
  tokenize_files(posix_io(), options);
  const auto from_text = read_eval_text(options.inputs[0], ByteTokenizer(), false, 0);
  const auto from_shards = read_eval_text(options.out, ByteTokenizer(), false, 0);
  CHECK(from_shards.sequences == from_text.sequences);
  CHECK(from_shards.n_bytes == from_text.n_bytes);
  for (const int64_t max_tokens : {0, 3}) {
    const auto documents = read_eval_text(options.inputs[0], ByteTokenizer(), true, max_tokens);
    const auto of_shards = read_eval_text(options.out, ByteTokenizer(), true, max_tokens);
    CHECK(of_shards.sequences == documents.sequences);
    CHECK(of_shards.sequences.size() == 2);
    CHECK(of_shards.n_bytes == documents.n_bytes);
  }
  const auto chars = make_tokenizer("chars", options.inputs);
  CHECK_THROWS_WITH(read_eval_text(options.out, *chars, false, 0), Contains("bytes-257"));
  CHECK_THROWS_AS(read_eval_text(directory.file("none"), ByteTokenizer(), false, 0), Error);
}

TEST_CASE("append_group: sequences keep the number of their text, sums add") {
  const auto text_of = [](size_t n_sequences, int64_t n_words) {
    EvalText text;
    text.sequences.assign(n_sequences, {1, 2});
    text.n_bytes = 10;
    text.n_words = n_words;
    text.unscored_id = 5;
    return text;
  };
  EvalText all;
  append_group(all, text_of(2, 4));
  CHECK(all.group_bytes.empty());
  append_group(all, text_of(1, 3));
  append_group(all, text_of(2, 2));
  CHECK(all.groups == std::vector<size_t>{0, 0, 1, 2, 2});
  CHECK(all.sequences.size() == 5);
  CHECK(all.n_bytes == 30);
  CHECK(all.group_bytes == std::vector<int64_t>{10, 10, 10});
  CHECK(all.n_words == 9);
  CHECK(all.unscored_id == 5);
  append_group(all, text_of(1, 0));  // as of shards
  CHECK(all.n_words == 0);
  append_group(all, text_of(1, 3));
  CHECK(all.n_words == 0);
}

}  // namespace dsmoe
