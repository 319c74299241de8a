#include "data/text_reader.h"

#include <catch2/catch.hpp>
#include <vector>

#include "common/error.h"
#include "common/io.h"
#include "data/utf8.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Texts = std::vector<std::string>;

Texts read(const std::string& name, const std::string& bytes, const TextFormat& format = {}) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file(name), bytes);
  Texts texts;
  read_documents(
      directory.file(name), [&](std::string_view text) { texts.emplace_back(text); }, format);
  return texts;
}

// Texts with marks at every place near the reader's megabyte, characters of several bytes among
// them.
std::string text_beyond_a_window(size_t shift, const std::string& line_end = "\n") {
  std::string text(shift, 'x');
  while (text.size() < 3'300'000)
    text += "na\xC3\xAFve \xE2\x82\xAC<|endoftext|>\nab\n<|endoftext|>" + line_end;
  return text;
}

}  // namespace

TEST_CASE("plain text is cut at its document marks and otherwise kept byte for byte") {
  CHECK(read("a.txt", " one\r\n\n") == Texts{" one\r\n\n"});
  CHECK(read("a.txt", "one<|endoftext|>two\n<|endoftext|>") == Texts{"one", "two\n"});
  CHECK(read("a.txt", "<|endoftext|><|endoftext|>x") == Texts{"x"});
  CHECK(read("a.txt", std::string("a\0b", 3)) == Texts{std::string("a\0b", 3)});
}

TEST_CASE("a separator that fills a line takes the line's end with it") {
  CHECK(read("a.txt", "one\n<|endoftext|>\ntwo\n<|endoftext|>\n") == Texts{"one\n", "two\n"});
  CHECK(read("a.txt", "<|endoftext|>\none<|endoftext|>\ntwo") == Texts{"one", "\ntwo"});
  CHECK(read("a.txt", "<|endoftext|>\n<|endoftext|>\n\nx") == Texts{"\nx"});
}

TEST_CASE("the separator is optional; without one a file is one document") {
  CHECK(read("a.txt", "a--b--", {.separator = "--"}) == Texts{"a", "b"});
  CHECK(read("a.txt", "a<|endoftext|>b", {.separator = ""}) == Texts{"a<|endoftext|>b"});
  CHECK(read("a.txt", "a\n\nb\n\nc\n", {.separator = "\n\n"}) == Texts{"a", "b", "c\n"});
}

TEST_CASE("a long file gives the documents of its text for any size of reads") {
  const std::string line_end = GENERATE("\n", "\r\n");
  for (const size_t shift : {0, 1, 5, 9, 14, 17, 23}) {
    const auto texts = read("a.txt", text_beyond_a_window(shift, line_end));
    REQUIRE(texts.size() > 100'000);
    CHECK(texts[0] == std::string(shift, 'x') + "na\xC3\xAFve \xE2\x82\xAC");
    size_t n_wrong = 0;
    for (size_t i = 1; i < texts.size(); ++i) {
      const std::string expected = i % 2 == 1 ? "\nab\n" : "na\xC3\xAFve \xE2\x82\xAC";
      n_wrong += texts[i] == expected ? 0 : 1;
    }
    CHECK(n_wrong == 0);
  }
}

TEST_CASE("a document above a megabyte comes in parts of whole characters, and in one piece") {
  std::string text = "a";
  while (text.size() < 2'500'000) text += "\xE2\x82\xAC";
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("a.txt"), text);
  std::string joined;
  int n_parts = 0;
  read_text_parts(posix_io(), directory.file("a.txt"), {}, [&](const TextPart& part) {
    CHECK(part.is_first == (n_parts == 0));
    CHECK(find_invalid_utf8(part.text) == std::string::npos);
    CHECK(part.text.size() < 1'200'000);
    joined += part.text;
    ++n_parts;
    CHECK(part.is_last == (joined.size() == text.size()));
  });
  CHECK(n_parts >= 3);
  CHECK((joined == text));
  CHECK((read("a.txt", text) == Texts{text}));
}

TEST_CASE("JSON lines give their texts in order; blank lines are skipped") {
  CHECK(read("a.jsonl", "{\"text\": \"one\\n\"}\n\n{\"id\": 3, \"text\": \"\\u00e4\"}") ==
        Texts{"one\n", "\xC3\xA4"});
  CHECK(read("a.jsonl", "{\"text\": 1, \"body\": \"b\"}\n", {.field = "body"}) == Texts{"b"});
  CHECK(read("a.jsonl.gz", "{\"text\": \"x\"}") == Texts{"x"});  // the name, not the content
}

TEST_CASE(
    "a byte order mark is dropped; CR LF is kept, except behind a separator that fills a line") {
  CHECK(read("a.txt",
             "\xEF\xBB\xBF"
             "one\r\n") == Texts{"one\r\n"});
  CHECK(read("a.jsonl", "\xEF\xBB\xBF{\"text\": \"one\"}\r\n\r\n{\"text\": \"two\"}\r\n") ==
        Texts{"one", "two"});
  CHECK(read("a.txt", "one\r\n<|endoftext|>\r\ntwo\r\n<|endoftext|>\r\n") ==
        Texts{"one\r\n", "two\r\n"});
  CHECK(read("a.txt", "one<|endoftext|>\r\ntwo") == Texts{"one", "\r\ntwo"});
  CHECK_THROWS_WITH(read("a.txt",
                         "\xEF\xBB\xBF"
                         "ab\xFF"),
                    Contains("0xff at offset 5"));
  CHECK_THROWS_WITH(read("a.txt", "\xEF\xBB\xBF"), Contains("empty"));
}

TEST_CASE("JSON lines are recognized by ending in any case, or by a key and the first line") {
  const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  for (const std::string name : {"a.json", "A.JSONL", "a.Json.GZ", "a.ndjson"}) {
    CHECK(read(name, lines) == Texts{"one", "two"});
  }
  CHECK(read("a.txt", lines) == Texts{lines});
  CHECK(read("a.txt", lines, {.field = "text"}) == Texts{"one", "two"});
  CHECK(read("a.txt", "plain\n", {.field = "text"}) == Texts{"plain\n"});
  CHECK_THROWS_WITH(read("a.json", "[{\"text\": \"one\"}]"),
                    Contains("a.json") && Contains("array"));
  CHECK_THROWS_WITH(read("a.json", "{\n\"text\": \"one\"\n}"), Contains("several lines"));
  CHECK_THROWS_WITH(read("a.json", "plain"), Contains("a.json:1"));
}

TEST_CASE("the error for unreadable text names file and place") {
  CHECK_THROWS_WITH(read("a.txt", ""), Contains("a.txt") && Contains("empty"));
  CHECK_THROWS_WITH(read("a.txt", "<|endoftext|>"), Contains("no document"));
  CHECK_THROWS_WITH(read("a.txt", "ab\xFF"), Contains("a.txt") && Contains("0xff at offset 2"));
  CHECK_THROWS_WITH(read("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xFF\"}\n"),
                    Contains("a.jsonl:2") && Contains("UTF-8"));
  CHECK_THROWS_WITH(read("a.jsonl", "{\"text\": \"a\"}\n{\"body\": \"a\"}\n"),
                    Contains("a.jsonl:2") && Contains("'text'"));
  CHECK_THROWS_WITH(read("a.jsonl", "{\"text\": 3}\n"), Contains("a.jsonl:1"));
  CHECK_THROWS_WITH(read("a.jsonl", "{\"text\": \"a\"\n"), Contains("a.jsonl:1"));
  CHECK_THROWS_WITH(read("a.jsonl", "{\"text\": \"\\ud800\"}\n"), Contains("a.jsonl:1"));
  CHECK_THROWS_WITH(read_documents("/no/such/file.txt", [](std::string_view) {}),
                    Contains("/no/such/file.txt"));
}

}  // namespace dsmoe
