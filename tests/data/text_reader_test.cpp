#include "data/text_reader.h"

#include <catch2/catch.hpp>
#include <vector>

#include "common/error.h"
#include "common/io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Texts = std::vector<std::string>;

Texts read(const std::string& name, const std::string& bytes) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file(name), bytes);
  Texts texts;
  read_documents(directory.file(name), [&](std::string_view text) { texts.emplace_back(text); });
  return texts;
}

}  // namespace

TEST_CASE("UTF-8: the first byte that breaks it, by the table of the Unicode standard") {
  for (const std::string good : {"",
                                 "abc",
                                 "\xC2\x80",
                                 "\xDF\xBF",
                                 "\xE0\xA0\x80",
                                 "\xED\x9F\xBF",
                                 "\xEE\x80\x80",
                                 "\xF0\x90\x80\x80",
                                 "\xF4\x8F\xBF\xBF"}) {
    CHECK(find_invalid_utf8(good) == std::string::npos);
    CHECK(find_invalid_utf8("12345678901" + good + "x") == std::string::npos);
  }
  for (const std::string bad : {"\x80",
                                "\xBF",
                                "\xC0\x80",
                                "\xC1\xBF",
                                "\xC2",
                                "\xC2x",
                                "\xE0\x9F\xBF",
                                "\xE2\x82",
                                "\xED\xA0\x80",
                                "\xED\xBF\xBF",
                                "\xF0\x8F\xBF\xBF",
                                "\xF0\x90\x80",
                                "\xF4\x90\x80\x80",
                                "\xF5\x80\x80\x80",
                                "\xFF"}) {
    CHECK(find_invalid_utf8(bad) == 0);
    CHECK(find_invalid_utf8("123456789" + bad + "x") == 9);
  }
}

TEST_CASE("plain text is cut at its document marks and otherwise kept byte for byte") {
  CHECK(read("a.txt", " one\r\n\n") == Texts{" one\r\n\n"});
  CHECK(read("a.txt", "one<|endoftext|>two\n<|endoftext|>") == Texts{"one", "two\n"});
  CHECK(read("a.txt", "<|endoftext|><|endoftext|>x") == Texts{"x"});
  CHECK(read("a.txt", std::string("a\0b", 3)) == Texts{std::string("a\0b", 3)});
}

TEST_CASE("JSON lines give their texts in order; blank lines are nothing") {
  CHECK(read("a.jsonl", "{\"text\": \"one\\n\"}\n\n{\"id\": 3, \"text\": \"\\u00e4\"}") ==
        Texts{"one\n", "\xC3\xA4"});
}

TEST_CASE("text that cannot be read is refused by file and place") {
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
