#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/hf_tokenizer_export.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tokenizer_files.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

const std::string kGolden = DSMOE_SOURCE_DIR "/tests/golden/special_tokens/";

std::string bytes_of(const std::string& name) {
  return read_file(posix_io(), kGolden + name, 1 << 20);
}

// A directory of the golden, written out.
class GoldenDirectory {
 public:
  explicit GoldenDirectory(const Json& files) {
    for (const auto& [name, content] : files.items()) {
      write_file(posix_io(),
                 directory_.file(name),
                 content == "pieces" ? bytes_of("pieces.model") : content.dump());
    }
  }
  std::unique_ptr<Tokenizer> read() const {
    const auto model = directory_.file("tokenizer.model");
    const bool has_model = std::filesystem::exists(model);
    return make_tokenizer(has_model ? model : directory_.file("tokenizer.json"), {});
  }
  std::string file(const std::string& name) const { return directory_.file(name); }

 private:
  TemporaryDirectory directory_;
};

// An id, or none for null.
std::optional<int32_t> id_at(const Json& json, const char* key) {
  return json[key].is_null() ? std::nullopt : std::optional<int32_t>(json[key].get<int32_t>());
}

void check_same(const Tokenizer& tokenizer, const Json& expected) {
  CHECK(tokenizer.bos_id() == id_at(expected, "bos"));
  CHECK(tokenizer.eos_id() == id_at(expected, "eos"));
  CHECK(tokenizer.special_tokens().pad == id_at(expected, "pad"));
  CHECK(tokenizer.vocab_size() == expected["n_ids"]);
  for (const auto& one : expected["cases"]) {
    const auto text = one["text"].get<std::string>();
    INFO(text);
    const auto ids = tokenizer.encode_with_bos(text);
    CHECK(ids == one["ids"].get<Ids>());
    CHECK(tokenizer.decode(ids) == one["decoded"].get<std::string>());
  }
}

std::unique_ptr<Tokenizer> stored_and_loaded(const Tokenizer& tokenizer) {
  const TemporaryDirectory directory;
  for (const auto& file : tokenizer_files(tokenizer)) {
    write_file(posix_io(), directory.file(file.name), file.bytes);
  }
  return load_tokenizer(posix_io(), directory.file(""));
}

std::unique_ptr<Tokenizer> exported_and_read(const Tokenizer& tokenizer) {
  const TemporaryDirectory directory;
  bool has_model = false;
  for (const auto& file : hf_tokenizer_files(tokenizer)) {
    write_file(posix_io(), directory.file(file.name), file.bytes);
    has_model = has_model || file.name == "tokenizer.model";
  }
  return make_tokenizer(directory.file(has_model ? "tokenizer.model" : "tokenizer.json"), {});
}

}  // namespace

TEST_CASE("Hugging Face directories: ids, texts and special tokens are those of transformers",
          "[data]") {
  const auto directories = Json::parse(bytes_of("directories.json"));
  REQUIRE(directories.size() == 12);
  for (const auto& [name, expected] : directories.items()) {
    INFO(name);
    const GoldenDirectory directory(expected["files"]);
    const auto tokenizer = directory.read();
    check_same(*tokenizer, expected);
    {
      INFO("as a checkpoint carries it");
      const auto loaded = stored_and_loaded(*tokenizer);
      check_same(*loaded, expected);
      CHECK(loaded->special_tokens() == tokenizer->special_tokens());
      CHECK(loaded->fingerprint() == tokenizer->fingerprint());
    }
    {
      INFO("as an export carries it");
      const auto exported = exported_and_read(*tokenizer);
      check_same(*exported, expected);
      CHECK(exported->special_tokens().adds_bos == tokenizer->special_tokens().adds_bos);
      CHECK(exported->special_tokens().added == tokenizer->special_tokens().added);
    }
  }
}

TEST_CASE("Hugging Face directories: the shared tokenizers have their BOS and every EOS",
          "[data]") {
  const auto root = shared_data("hf/tokenizers");
  if (root.empty()) return;
  size_t n_read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    const auto expected =
        Json::parse(read_file(posix_io(), (entry.path() / "expected.json").string(), 1 << 22));
    INFO(entry.path().string());
    std::unique_ptr<Tokenizer> tokenizer;
    try {
      tokenizer = make_tokenizer((entry.path() / "tokenizer.json").string(), {});
    } catch (const Error&) {
      continue;  // an unsupported kind of vocabulary
    }
    ++n_read;
    const auto& special = tokenizer->special_tokens();
    const auto eos = expected["eos_ids"].get<Ids>();
    for (const int32_t id : eos) CHECK(special.is_eos(id));
    CHECK(special.eos.size() == eos.size());
    CHECK(special.adds_bos == expected["adds_bos"]);
    if (!expected["bos_id"].is_null()) CHECK(special.bos == expected["bos_id"]);
  }
  CHECK(n_read >= 2);
}

TEST_CASE("a text that spells BOS gets no second one", "[data]") {
  const auto directories = Json::parse(bytes_of("directories.json"));
  const GoldenDirectory directory(directories["bpe with a template"]["files"]);
  const auto tokenizer = directory.read();
  CHECK(tokenizer->encode_with_bos("a") == Ids{257, 'a'});
  CHECK(tokenizer->encode_with_bos("<|bos|>a") == Ids{257, 'a'});
  CHECK(tokenizer->encode_with_bos("<|bos|><|bos|>a") == Ids{257, 257, 'a'});
  CHECK(tokenizer->encode_with_bos("") == Ids{257});
}

TEST_CASE("ids without a token decode to nothing", "[data]") {
  const auto directories = Json::parse(bytes_of("directories.json"));
  for (const auto* name : {"bpe with a template", "pieces with added_tokens.json"}) {
    const GoldenDirectory directory(directories[name]["files"]);
    const auto tokenizer = directory.read();
    auto ids = tokenizer->encode("one");
    ids.insert(ids.begin() + 1, static_cast<int32_t>(tokenizer->vocab_size()) + 7);
    CHECK(tokenizer->decode(ids) == "one");
    CHECK_FALSE(tokenizer->has_token(tokenizer->vocab_size()));
    CHECK_THROWS_AS(tokenizer->decode({-1}), Error);
  }
}

TEST_CASE("a gap between added tokens has no token", "[data]") {
  SpecialTokens gap;
  gap.added = {{.id = 5, .content = "<old>", .special = true}, {.id = 321, .content = "<x>"}};
  const SentencePieceTokenizer tokenizer(bytes_of("pieces.model"), "pieces", gap);
  CHECK(tokenizer.vocab_size() == 322);
  CHECK(tokenizer.has_token(321));
  CHECK_FALSE(tokenizer.has_token(320));
  CHECK(tokenizer.decode({320, 321}) == "<x>");
  CHECK(tokenizer.encode("<old><x>") == Ids{5, 321});
  SpecialTokens far;
  far.added = {{.id = 1 << 20, .content = "<x>"}};
  CHECK_THROWS_WITH(SentencePieceTokenizer(bytes_of("pieces.model"), "pieces", far),
                    Contains("expected added tokens to follow the 320 pieces"));
}

TEST_CASE("descriptions of older versions add BOS to every text", "[data]") {
  const TemporaryDirectory directory;
  const auto directories = Json::parse(bytes_of("directories.json"));
  const auto json = directories["bpe without a template"]["files"]["tokenizer.json"].dump();
  const HfBpeTokenizer now(json, "t", SpecialTokens{});
  write_file(posix_io(), directory.file("hf_tokenizer.json"), json);
  const Json record = {
      {"kind", "hf-bpe"}, {"fingerprint", now.fingerprint()}, {"bos_id", 257}, {"eos_id", 258}};
  write_file(posix_io(), directory.file("tokenizer.json"), record.dump());
  const auto loaded = load_tokenizer(posix_io(), directory.file(""));
  CHECK(loaded->encode_with_bos("a") == Ids{257, 'a'});
  CHECK(loaded->special_tokens().eos == Ids{258});
  // An export of it has a template, which transformers reads instead of add_bos_token.
  const auto exported = exported_and_read(*loaded);
  CHECK(exported->encode_with_bos("a") == Ids{257, 'a'});
}

TEST_CASE("SentencePiece with added tokens: a text encoded in parts has the ids of the whole",
          "[data]") {
  SpecialTokens special;
  special.added = {{.id = 320, .content = "<x>", .special = true},
                   {.id = 321, .content = "<r>", .special = true, .rstrip = true},
                   {.id = 322, .content = "two words"}};
  special.prefixes_every_piece = GENERATE(false, true);
  const SentencePieceTokenizer tokenizer(bytes_of("pieces.model"), "pieces", special);
  std::string text;
  for (const char* part : {"the man",
                           "<x>",
                           " said\n",
                           "<r>",
                           "  \n",
                           "two words",
                           "\n\n",
                           "no <x>\n",
                           "one two",
                           " words <r> end\n",
                           "last line"}) {
    text += part;
  }
  text += "\n" + text;
  const auto whole = tokenizer.encode(text);
  size_t n_cuts = 0;
  for (size_t size = 1; size <= text.size(); ++size) {
    const size_t at = tokenizer.divide(std::string_view(text).substr(0, size));
    if (at == 0) continue;
    ++n_cuts;
    auto apart = tokenizer.encode(text.substr(0, at));
    for (const int32_t id : tokenizer.encode_rest(text.substr(at))) apart.push_back(id);
    INFO(at);
    CHECK(apart == whole);
  }
  CHECK(n_cuts > 100);
}

TEST_CASE("read_hf_sentencepiece: tokens without a row in the model are left out", "[data]") {
  const auto directories = Json::parse(bytes_of("directories.json"));
  const GoldenDirectory directory(directories["pieces with added_tokens.json"]["files"]);
  const auto tokenizer =
      read_hf_sentencepiece(posix_io(), directory.file("tokenizer.model"), /*max_tokens=*/321);
  CHECK(tokenizer->vocab_size() == 321);
  CHECK(tokenizer->special_tokens().eos.empty());
}

}  // namespace dsmoe
