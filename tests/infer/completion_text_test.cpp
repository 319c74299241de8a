#include "infer/completion_text.h"

#include <catch2/catch.hpp>

namespace dsmoe {

TEST_CASE("a completion's text: what is shown, joined, is the text, in whole characters") {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8C\x8D!\xFFx\xC3";
  CompletionText completion({"never"});
  std::string shown;
  for (const char byte : text) {
    const auto part = completion.push(std::string_view(&byte, 1));
    const bool splits = !part.empty() && (static_cast<unsigned char>(part[0]) & 0xC0) == 0x80;
    CHECK_FALSE(splits);
    shown += part;
  }
  CHECK(shown == text.substr(0, text.size() - 1));  // the last byte may yet become a character
  shown += completion.finish();
  CHECK(shown == text);
  CHECK(completion.text() == text);
  CHECK_FALSE(completion.is_stopped());
}

TEST_CASE("a completion's text ends before the first stop text, wherever its bytes were cut") {
  const std::string text = "one END two STOP";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    CompletionText completion({"STOP", "END"});
    auto shown = completion.push(std::string_view(text).substr(0, cut));
    CHECK(shown.find('E') == std::string::npos);
    if (!completion.is_stopped()) shown += completion.push(std::string_view(text).substr(cut));
    REQUIRE(completion.is_stopped());
    shown += completion.finish();
    CHECK(shown == "one ");
    CHECK(completion.text() == "one ");
  }
}

TEST_CASE("the beginning of a stop text is held back and shown once it cannot become one") {
  CompletionText completion({"abab!"});
  CHECK(completion.push("xab").find("x") == 0);
  CHECK(completion.push("ab") == "");
  CHECK(completion.push("ab") == "ab");  // "abab" may still go on as "abab!"
  CHECK(completion.push("c") == "ababc");
  CHECK(completion.push("aba") == "");
  CHECK(completion.finish() == "aba");
}

TEST_CASE("a stop text that holds a special token ends a text at that token") {
  const SpecialTokens special{.added = {{.id = 1, .content = "<|end|>", .special = true},
                                        {.id = 2, .content = "<|tool|>"}}};
  // Each token of the completion, hidden ones in brackets, and what is left of the text.
  struct Case {
    std::vector<std::string> stop;
    std::vector<std::string> tokens;
    std::string text;
    bool is_stopped;
  };
  const std::vector<Case> cases = {
      {{"<|end|>"}, {"ab", "[<|end|>]"}, "ab", true},
      {{"<|end|>"}, {"ab<|e", "nd|>c"}, "ab", true},  // spelled by ordinary tokens
      {{"\n<|end|>"}, {"a", "\n", "[<|end|>]"}, "a", true},
      {{"\n<|end|>"}, {"a\n", "b", "[<|end|>]", "c"}, "a\nbc", false},
      {{"<|end|>\n"}, {"a", "[<|end|>]", "b", "[<|end|>]", "\nc"}, "ab", true},
      {{"<|end|>x<|end|>"}, {"a", "[<|end|>]", "x", "[<|end|>]"}, "a", true},
      {{"end"}, {"a", "[<|end|>]", "b"}, "ab", false},  // what is not shown is no text
      {{"end", "<|end|>z"}, {"a", "[<|end|>]", "b end"}, "ab ", true},
      {{">b<|end|>"}, {"a", "[<|end|>]", "b", "[<|end|>]"}, "ab", false},
      {{"ab", "<|end|>"}, {"a", "[<|other|>]", "b"}, "", true},
      {{"<|tool|>"}, {"a", "<|tool|>", "b"}, "a", true}};
  for (const auto& [stop, tokens, text, is_stopped] : cases) {
    CompletionText completion(stop, &special);
    std::string shown;
    for (const auto& token : tokens) {
      if (completion.is_stopped()) break;
      const bool is_hidden = token.front() == '[';
      shown += is_hidden ? completion.push_hidden(token.substr(1, token.size() - 2))
                         : completion.push(token);
      CHECK(text.starts_with(shown));
    }
    shown += completion.finish();
    INFO(stop[0] << " in " << tokens[0]);
    CHECK(completion.is_stopped() == is_stopped);
    CHECK(completion.text() == text);
    CHECK(shown == text);
  }
}

}  // namespace dsmoe
