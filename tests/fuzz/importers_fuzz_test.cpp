#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/io.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/sentencepiece_model.h"
#include "formats/llama2c.h"
#include "formats/llama2c_tokenizer.h"
#include "formats/safetensors.h"
#include "formats/sharded_index.h"
#include "formats/tokenizer_json.h"
#include "fuzz/live_bytes.h"
#include "model/io/llama_config.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
using Bytes = std::string;
using Target = std::function<void(const Bytes&)>;

constexpr size_t kMaxSeedBytes = 1 << 20;

std::vector<Bytes> read_seeds(const std::string& target, const std::vector<std::string>& golden) {
  std::vector<Bytes> seeds;
  std::vector<std::string> paths;
  for (const auto& name : golden) paths.push_back(DSMOE_SOURCE_DIR "/tests/golden/" + name);
  const std::string corpus = DSMOE_SOURCE_DIR "/tests/fuzz/corpus/" + target;
  for (const auto& item : fs::directory_iterator(corpus)) paths.push_back(item.path().string());
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) seeds.push_back(read_file(posix_io(), path, kMaxSeedBytes));
  return seeds;
}

/// One change of the kinds that break parsers: bits, lengths, cuts, repeats, numbers at the limits.
class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  Bytes mutate(const std::vector<Bytes>& seeds) {
    Bytes bytes = seeds[below(seeds.size())];
    const size_t n_changes = 1 + below(4);
    for (size_t i = 0; i < n_changes; ++i) change(bytes, seeds);
    if (bytes.size() > kMaxSeedBytes) bytes.resize(kMaxSeedBytes);
    return bytes;
  }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(random_() % n); }

  void change(Bytes& bytes, const std::vector<Bytes>& seeds) {
    const size_t at = below(bytes.size());
    switch (below(7)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        return;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<char>(below(256));
        return;
      case 2:
        bytes.resize(at);
        return;
      case 3:
        bytes.insert(at, bytes.substr(below(bytes.size()), below(64)));
        return;
      case 4:
        bytes.erase(at, below(32));
        return;
      case 5: {
        const auto& other = seeds[below(seeds.size())];
        bytes = bytes.substr(0, at) + other.substr(below(other.size()));
        return;
      }
      default:
        put_number(bytes, at);
    }
  }

  // Replaces a number in the text, or 32 or 64 bits.
  void put_number(Bytes& bytes, size_t at) {
    static const std::vector<std::string> kTexts = {"-1",
                                                    "0",
                                                    "1",
                                                    "1e308",
                                                    "-0.5",
                                                    "4294967296",
                                                    "9223372036854775807",
                                                    "18446744073709551615",
                                                    "18446744073709551616",
                                                    "null",
                                                    "[]",
                                                    "{}",
                                                    "\"\"",
                                                    "true"};
    if (below(2) == 0) {
      const auto digit = bytes.find_first_of("0123456789", at);
      if (digit == Bytes::npos) return;
      const auto end = bytes.find_first_not_of("0123456789.", digit);
      bytes.replace(digit, end == Bytes::npos ? end : end - digit, kTexts[below(kTexts.size())]);
      return;
    }
    static const std::vector<int64_t> kNumbers = {
        -1, 0, 1, 127, 4096, 1 << 24, 2147483647, int64_t{1} << 40, INT64_MAX, INT64_MIN};
    const int64_t number = kNumbers[below(kNumbers.size())];
    const size_t size = below(2) == 0 ? 4 : 8;
    const size_t aligned = below(3) == 0 ? 0 : at / 4 * 4;
    if (aligned + size <= bytes.size()) std::memcpy(bytes.data() + aligned, &number, size);
  }

  std::mt19937_64 random_;
};

/// Runs the target on one input; an Error is valid, any other failure is a finding.
void run_one(const std::string& name, const Target& target, const Bytes& bytes) {
  const LiveBytes live;
  std::string finding;
  try {
    target(bytes);
  } catch (const Error&) {
  } catch (const std::exception& error) {
    finding = error.what();
  }
  if (live.peak() > bytes.size() + (1 << 20)) {
    finding = "held " + std::to_string(live.peak()) + " bytes for a file of " +
              std::to_string(bytes.size());
  }
  if (finding.empty()) return;
  write_file(posix_io(), "/tmp/dsmoe-fuzz-" + name, bytes);
  FAIL(name << ": " << finding << "; the input is /tmp/dsmoe-fuzz-" << name);
}

int64_t number_of(const char* variable, int64_t missing) {
  const char* text = std::getenv(variable);
  return text == nullptr ? missing : std::atoll(text);
}

void fuzz(const std::string& name, const std::vector<std::string>& golden, const Target& target) {
  using Clock = std::chrono::steady_clock;
  const auto seeds = read_seeds(name, golden);
  REQUIRE_FALSE(seeds.empty());
  for (const auto& seed : seeds) run_one(name, target, seed);
  Mutator mutator(static_cast<uint64_t>(number_of("DSMOE_FUZZ_SEED", 0)));
  const int64_t seconds = number_of("DSMOE_FUZZ_SECONDS", 0);
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  int64_t n = 0;
  for (; seconds > 0 ? Clock::now() < end : n < 3000; ++n) {
    run_one(name, target, mutator.mutate(seeds));
  }
  SUCCEED(name << ": " << n << " mutations of " << seeds.size() << " files");
}

void read_tensors(const auto& file) {
  std::vector<char> data;
  for (const auto& entry : file.tensors()) {
    data.resize(entry.end - entry.begin);
    file.read(entry, data.data());
  }
}

/// Checks that the input is refused with at most the file's size and 1 MB in memory at any time.
void check_refused(const std::string& what, const Bytes& bytes, const Target& parse) {
  INFO(what << " of " << bytes.size() << " bytes");
  const LiveBytes live;
  CHECK_THROWS_AS(parse(bytes), Error);
  CHECK(live.peak() <= bytes.size() + (1 << 20));
}

Bytes repeated(const Bytes& begin, const std::function<Bytes(int)>& part, const Bytes& end) {
  constexpr size_t kLarge = 4 << 20;
  Bytes bytes = begin;
  for (int i = 0; bytes.size() < kLarge; ++i) bytes += part(i);
  return bytes + end;
}

/// Megabytes of JSON that are small as text and large in memory, or break off late.
std::vector<std::pair<std::string, Bytes>> hostile_json() {
  const auto same = [](const Bytes& part) { return [part](int) { return part; }; };
  const auto numbered = [](const Bytes& before, const Bytes& after) {
    return [=](int i) { return before + std::to_string(i) + after; };
  };
  return {{"empty lists", repeated("[[]", same(",[]"), "]")},
          {"empty objects", repeated("{\"a\":[{}", same(",{}"), "]}")},
          {"numbers", repeated("[0", same(",1"), "]")},
          {"members", repeated("{\"a\":0", numbered(",\"", "\":0"), "}")},
          {"a text", repeated("{\"a\":\"", same("xxxxxxxx"), "\"}")},
          {"a number", repeated("[", same("11111111"), "]")},
          {"a text without end", repeated("{\"a\":\"", same("xxxxxxxx"), "")},
          {"depth", repeated("", same("["), "")},
          {"a model that breaks off",
           repeated("{\"model\":{\"vocab\":{\"a\":0", numbered(",\"", "\":0"), "")},
          {"a vocabulary of lists",
           repeated("{\"model\":{\"vocab\":{\"a\":0", numbered(",\"", "\":0"), ",\"b\":[]}}}")},
          {"merges of lists",
           repeated("{\"model\":{\"merges\":[\"a b\"", same(",[\"a\",\"b\"]"), ",[[]]]}}")},
          {"tensors without data",
           repeated("{\"__metadata__\":{}",
                    numbered(",\"", "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"),
                    "}")},
          {"an index",
           repeated("{\"weight_map\":{\"a\":\"b.safetensors\"",
                    numbered(",\"", "\":\"b.safetensors\""),
                    "}}")}};
}

}  // namespace

TEST_CASE("importers: megabytes of hostile JSON are refused in the memory of their text") {
  const TemporaryDirectory directory;
  const auto path = directory.file("x");
  for (const auto& [what, json] : hostile_json()) {
    check_refused(what + " as config.json", json, [](const Bytes& bytes) {
      parse_llama_config(bytes, "config.json");
    });
    check_refused(
        what + " as index", json, [](const Bytes& bytes) { parse_sharded_index(bytes, "index"); });
    check_refused(what + " as tokenizer.json", json, [](const Bytes& bytes) {
      parse_bpe_tokenizer(bytes, "tokenizer.json");
    });
    const uint64_t header_bytes = json.size();
    Bytes file(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
    write_file(posix_io(), path, file + json);
    check_refused(
        what + " as safetensors", json, [&](const Bytes&) { SafetensorsFile(posix_io(), path); });
  }
}

TEST_CASE(
    "importers: megabytes of an inconsistent tokenizer.json are refused in the memory of their "
    "text") {
  const auto golden =
      read_file(posix_io(), DSMOE_SOURCE_DIR "/tests/golden/bpe_llama3/tokenizer.json", 1 << 20);
  const auto good = nlohmann::json::parse(golden);
  // The form is valid throughout; the error is at the end.
  const auto refused = [&](const std::string& what, const auto& change) {
    auto json = good;
    auto& vocabulary = json["model"]["vocab"];
    for (size_t i = vocabulary.size() + json["added_tokens"].size(); i < 300'000; ++i) {
      vocabulary["zz" + std::to_string(i)] = i;
    }
    change(json);
    check_refused(what, json.dump(), [](const Bytes& bytes) {
      parse_bpe_tokenizer(bytes, "tokenizer.json", [](const PreTokenizerSteps& steps) {
        for (const auto& split : steps.splits) {
          if (split.pattern == "bad") throw Error("a pattern");
        }
      });
    });
  };
  using Json = nlohmann::json;
  refused("an id twice", [](Json& json) { json["model"]["vocab"]["zz299999"] = 0; });
  refused("an id left out", [](Json& json) { json["model"]["vocab"]["zz299999"] = 300'000; });
  refused("a token of no bytes", [](Json& json) { json["model"]["vocab"]["\n"] = 300'000; });
  refused("a byte without a token", [](Json& json) {
    auto& vocabulary = json["model"]["vocab"];
    vocabulary["zza"] = vocabulary["a"];
    vocabulary.erase("a");
  });
  refused("a merge of no tokens", [](Json& json) {
    for (int i = 0; i < 200'000; ++i) json["model"]["merges"].push_back({"a", "b"});
    json["model"]["merges"].push_back({"a", "\n"});
  });
  refused("a pattern", [](Json& json) {
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "bad";
  });
}

TEST_CASE("fuzz: safetensors") {
  const TemporaryDirectory directory;
  const auto path = directory.file("x");
  fuzz("safetensors",
       {"llama_llama3/model-00001-of-00003.safetensors", "llama_gqa/expected.safetensors"},
       [&](const Bytes& bytes) {
         write_file(posix_io(), path, bytes);
         read_tensors(SafetensorsFile(posix_io(), path));
       });
}

TEST_CASE("fuzz: llama2.c") {
  const TemporaryDirectory directory;
  const auto path = directory.file("x");
  fuzz("llama2c", {}, [&](const Bytes& bytes) {
    write_file(posix_io(), path, bytes);
    read_tensors(Llama2cFile(posix_io(), path));
  });
}

TEST_CASE("fuzz: llama2.c tokenizer") {
  fuzz("llama2c_tokenizer", {}, [](const Bytes& bytes) {
    sentencepiece_model_from(parse_llama2c_tokenizer(bytes, "tokenizer.bin"));
  });
}

TEST_CASE("fuzz: sharded index") {
  fuzz("sharded_index", {"llama_llama3/model.safetensors.index.json"}, [](const Bytes& bytes) {
    for (const auto& [tensor, file] : parse_sharded_index(bytes, "index")) {
      if (file.find('/') != std::string::npos) throw std::runtime_error("a folder: " + file);
    }
  });
}

TEST_CASE("fuzz: LLaMA config.json") {
  fuzz("llama_config",
       {"llama_llama3/config.json", "llama_gqa/config.json"},
       [](const Bytes& bytes) { parse_llama_config(bytes, "config.json").model.validate(); });
}

TEST_CASE("fuzz: tokenizer.json") {
  const std::string text = "I'm 12345 caf\xC3\xA9s<|begin_of_text|>\n\n  the end";
  fuzz("tokenizer_json",
       {"bpe_llama3/tokenizer.json", "bpe_gpt2/tokenizer.json"},
       [&](const Bytes& bytes) {
         const HfBpeTokenizer tokenizer(bytes, "tokenizer.json", std::nullopt, std::nullopt);
         for (const int32_t id : tokenizer.encode(text)) {
           if (id < 0 || id >= tokenizer.vocab_size()) throw std::runtime_error("an id outside");
         }
         std::vector<int32_t> all;
         for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
           all.push_back(static_cast<int32_t>(id));
         }
         tokenizer.decode(all);
       });
}

}  // namespace dsmoe
