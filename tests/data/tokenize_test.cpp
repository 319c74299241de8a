#include "data/tokenize.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "common/error.h"
#include "data/token_dataset.h"
#include "support/failing_io.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;

TokenizeOptions options_for(const TemporaryDirectory& directory, const std::string& bytes) {
  write_file(posix_io(), directory.file("a.txt"), bytes);
  TokenizeOptions options;
  options.inputs = {directory.file("a.txt")};
  options.out = directory.file("shards");
  return options;
}

std::vector<int32_t> all_tokens(const TokenDataset& dataset) {
  std::vector<int32_t> ids(static_cast<size_t>(dataset.n_tokens()));
  dataset.copy(0, ids);
  return ids;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(directory)) {
    names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Names and contents of a directory's files.
std::string fingerprint_of(const std::string& directory) {
  std::vector<fs::path> paths;
  for (const auto& item : fs::directory_iterator(directory)) paths.push_back(item.path());
  std::sort(paths.begin(), paths.end());
  std::string all;
  for (const auto& path : paths) {
    all += path.filename().string() + "\n" + read_file(posix_io(), path.string(), 1 << 26);
  }
  return all;
}

std::string long_text() {
  std::string text;
  for (int i = 0; text.size() < 3'000'000; ++i) {
    text += "line " + std::to_string(i % 1000 * 7919 % 1000) + "\n";
    if (i % 50'000 == 49'999) text += "<|endoftext|>";
  }
  return text;
}

}  // namespace

TEST_CASE("tokenize: each document is BOS and its bytes; shards are cut where they are full") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "ab<|endoftext|>cde");
  options.shard_tokens = 3;
  const auto result = tokenize_files(posix_io(), options);
  CHECK(result.n_tokens == 7);
  CHECK(result.n_documents == 2);
  CHECK(result.n_bytes == 5);
  CHECK(result.vocab_size == 257);
  CHECK(result.shards.size() == 3);

  const TokenDataset dataset(options.out);
  dataset.verify();
  CHECK(all_tokens(dataset) == std::vector<int32_t>{256, 'a', 'b', 256, 'c', 'd', 'e'});
  std::vector<int32_t> part(4);
  dataset.copy(2, part);  // over three shards
  CHECK(part == std::vector<int32_t>{'b', 256, 'c', 'd'});
  CHECK_THROWS_AS(dataset.copy(4, part), Error);
  CHECK_THROWS_AS(dataset.copy(-1, part), Error);
}

TEST_CASE("tokenize: the shards do not depend on the number of threads") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, long_text());
  options.tokenizer = "train:bpe:300";
  options.shard_tokens = 400'000;
  std::string first;
  for (const int threads : {1, 2, 5}) {
    options.threads = threads;
    options.out = directory.file("shards-" + std::to_string(threads));
    tokenize_files(posix_io(), options);
    const auto made = fingerprint_of(options.out);
    if (first.empty()) first = made;
    CHECK((made == first));
  }
}

TEST_CASE("tokenize: documents keep their starts across shards and within them") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "ab<|endoftext|>cdefgh<|endoftext|>i\n<|endoftext|>\nj");
  options.shard_tokens = 4;
  const auto result = tokenize_files(posix_io(), options);
  CHECK(result.n_documents == 4);
  const TokenDataset dataset(options.out);
  dataset.verify();
  const auto ids = all_tokens(dataset);
  std::vector<int64_t> expected;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == 256) expected.push_back(static_cast<int64_t>(i));
  }
  CHECK(dataset.n_documents() == 4);
  CHECK(dataset.document_starts(0, dataset.n_tokens()) == expected);
  CHECK(expected == std::vector<int64_t>{0, 3, 10, 13});
  CHECK(dataset.document_starts(1, 10) == std::vector<int64_t>{3});
  CHECK(dataset.document_starts(4, 13) == std::vector<int64_t>{10});
  for (int64_t position = 0; position <= dataset.n_tokens(); ++position) {
    const auto before = dataset.document_starts(0, position).size();
    CHECK(dataset.documents_before(position) == static_cast<int64_t>(before));
  }
}

TEST_CASE("tokenize: a document above the window is encoded in parts as if it were whole") {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; text.size() < 3'000'000; ++i) text += "word" + std::to_string(i % 5000) + " ";
  auto options = options_for(directory, text);
  write_file(posix_io(), directory.file("some.txt"), text.substr(0, 50'000));
  options.tokenizer = "train:bpe:300";
  options.threads = 3;
  tokenize_files(posix_io(), options);
  const TokenDataset dataset(options.out);
  std::vector<int32_t> expected{*dataset.tokenizer().bos_id()};
  const auto ids = dataset.tokenizer().encode(text);
  expected.insert(expected.end(), ids.begin(), ids.end());
  expected.push_back(*dataset.tokenizer().eos_id());
  CHECK((all_tokens(dataset) == expected));
  CHECK(dataset.document_starts(0, dataset.n_tokens()) == std::vector<int64_t>{0});
}

TEST_CASE("tokenize: reads many files of any kind in the given order") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "a|b");
  write_file(posix_io(), directory.file("b.jsonl"), "{\"body\": \"c\"}\n{\"body\": \"d\"}\n");
  options.inputs = {directory.file("b.jsonl"), directory.file("a.txt"), directory.file("b.jsonl")};
  options.format = {.field = "body", .separator = "|"};
  tokenize_files(posix_io(), options);
  CHECK(all_tokens(TokenDataset(options.out)) ==
        std::vector<int32_t>{256, 'c', 256, 'd', 256, 'a', 256, 'b', 256, 'c', 256, 'd'});
}

TEST_CASE("tokenize: progress grows and ends at 100 %") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "a<|endoftext|>b<|endoftext|>c");
  int64_t last = 0;
  int64_t total = 0;
  options.progress = [&](int64_t done, int64_t of) {
    CHECK(done >= last);
    last = done;
    total = of;
  };
  tokenize_files(posix_io(), options);
  CHECK(last == total);
  CHECK(total == 29);
}

TEST_CASE("tokenize: under any fault no part of a data set is left in its place") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "some text");
  bool succeeded = false;
  for (int first = 1; !succeeded; ++first) {
    REQUIRE(first < 100);
    FailingIo io(first);
    try {
      tokenize_files(io, options);
      succeeded = true;
    } catch (const RunError&) {
      // Removing fails too, as every call after the first failure does: the temporary may stay, and
      // an output renamed before the failure is whole.
      if (fs::exists(options.out)) CHECK_NOTHROW(TokenDataset(options.out).verify());
      fs::remove_all(options.out);
    }
  }
  CHECK_NOTHROW(TokenDataset(options.out).verify());
}

TEST_CASE("tokenize: of two processes with the same output the first to end keeps it") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "a text");
  auto other = options;
  other.inputs = {directory.file("b.txt")};
  write_file(posix_io(), other.inputs[0], "of another process");
  options.progress = [&](int64_t done, int64_t total) {
    if (done == total && !fs::exists(options.out)) tokenize_files(posix_io(), other);
  };
  SECTION("where nothing may be replaced") {
    CHECK_THROWS_WITH(tokenize_files(posix_io(), options),
                      Contains(options.out) && Contains("another process made it meanwhile"));
    CHECK(all_tokens(TokenDataset(options.out)).size() ==
          1 + std::string("of another process").size());
  }
  SECTION("where --force replaces it") {
    options.existing = Existing::kReplace;
    tokenize_files(posix_io(), options);
    CHECK(all_tokens(TokenDataset(options.out)).size() == 1 + std::string("a text").size());
  }
  CHECK_NOTHROW(TokenDataset(options.out).verify());
  CHECK(names_in(directory.file("")) == std::vector<std::string>{"a.txt", "b.txt", "shards"});
}

TEST_CASE("tokenize: an earlier data set is replaced on request, and stays if that fails") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "old");
  tokenize_files(posix_io(), options);
  const auto before = fingerprint_of(options.out);
  options.existing = Existing::kReplace;
  write_file(posix_io(), directory.file("a.txt"), "\xFF");
  CHECK_THROWS_AS(tokenize_files(posix_io(), options), Error);
  CHECK((fingerprint_of(options.out) == before));
  write_file(posix_io(), directory.file("a.txt"), "new text");
  tokenize_files(posix_io(), options);
  CHECK(all_tokens(TokenDataset(options.out)).size() == 9);
  options.out = directory.file("");
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("--force expects"));
}

TEST_CASE("tokenize: bad input leaves nothing and gives the reason") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "good");
  write_file(posix_io(), directory.file("bad.txt"), "\xFF");
  options.inputs.push_back(directory.file("bad.txt"));
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("bad.txt"));
  CHECK(names_in(directory.file("")) == std::vector<std::string>{"a.txt", "bad.txt"});

  options.inputs = {directory.file("a.txt")};
  options.tokenizer = "words";
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("'words'"));
  options.tokenizer = "train:bpe:x";
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("vocabulary size"));
  options.tokenizer = "bytes";
  tokenize_files(posix_io(), options);
  const auto before = fingerprint_of(options.out);
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("exists") && Contains("--force"));
  CHECK((fingerprint_of(options.out) == before));
}

TEST_CASE("a data set: an altered record, tokenizer or shard is refused") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, "one two three");
  options.shard_tokens = 7;
  tokenize_files(posix_io(), options);
  const auto altered =
      [&](const std::string& name, const std::string& from, const std::string& to) {
        const auto path = options.out + "/" + name;
        const auto whole = read_file(posix_io(), path, 1 << 20);
        auto text = whole;
        REQUIRE(text.find(from) != std::string::npos);
        text.replace(text.find(from), from.size(), to);
        write_file(posix_io(), path, text);
        CHECK_THROWS_AS(TokenDataset(options.out).verify(), Error);
        write_file(posix_io(), path, whole);
        CHECK_NOTHROW(TokenDataset(options.out).verify());
      };
  altered("dataset.json", "\"n_tokens\": 14", "\"n_tokens\": 13");
  altered("dataset.json", "\"vocab_size\": 257", "\"vocab_size\": 256");
  altered("dataset.json", "\"n_documents\": 1", "\"n_documents\": 2");
  altered("dataset.json", "shard-00001.bin", "../shards/shard-00001.bin");
  altered("dataset.json", "\"format_version\": 2", "\"format_version\": 1");
  altered("tokenizer.json", "bytes", "chars");
  altered("shard-00000.bin", "DSMT", "DSMU");
  fs::rename(options.out + "/shard-00000.bin", options.out + "/x");
  fs::rename(options.out + "/shard-00001.bin", options.out + "/shard-00000.bin");
  fs::rename(options.out + "/x", options.out + "/shard-00001.bin");
  CHECK_THROWS_WITH(TokenDataset(options.out), Contains("shard-00000.bin"));
}

namespace {

// Documents of a data set, as their tokens.
std::multiset<std::vector<int32_t>> documents_of(const std::string& directory) {
  const TokenDataset dataset(directory);
  const auto ids = all_tokens(dataset);
  auto starts = dataset.document_starts(0, dataset.n_tokens());
  starts.push_back(dataset.n_tokens());
  std::multiset<std::vector<int32_t>> documents;
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    documents.emplace(ids.begin() + starts[i], ids.begin() + starts[i + 1]);
  }
  return documents;
}

std::string many_documents() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "document " + std::to_string(i) + std::string(static_cast<size_t>(i * 37 % 90), 'x');
    text += "<|endoftext|>";
  }
  return text;
}

}  // namespace

TEST_CASE("tokenize: a validation share takes whole documents and loses no token", "[data]") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, many_documents());
  tokenize_files(posix_io(), options);
  options.out = directory.file("split");
  options.validation = 0.05;
  options.shard_tokens = 1000;
  const auto result = tokenize_files(posix_io(), options);
  REQUIRE(result.parts.size() == 2);
  CHECK(result.parts[0].path == directory.file("split/train"));
  CHECK(result.parts[1].path == directory.file("split/valid"));
  CHECK(result.shards.front() == "train/shard-00000.bin");
  CHECK(result.shards.back().starts_with("valid/shard-"));
  auto parts = documents_of(result.parts[0].path);
  const auto validation = documents_of(result.parts[1].path);
  parts.insert(validation.begin(), validation.end());
  CHECK(parts == documents_of(directory.file("shards")));
  const auto share =
      static_cast<double>(result.parts[1].n_tokens) / static_cast<double>(result.n_tokens);
  CHECK(share == Approx(0.05).margin(0.005));
  // Evenly along the text: each quarter of the documents gives some.
  std::set<int> quarters;
  for (const auto& document : validation) {
    std::string name;  // the number after BOS and "document "
    for (size_t i = 10; i < document.size() && document[i] >= '0' && document[i] <= '9'; ++i) {
      name += static_cast<char>(document[i]);
    }
    quarters.insert(std::stoi(name) / 100);
  }
  CHECK(quarters == std::set<int>{0, 1, 2, 3});
  const TokenDataset train(result.parts[0].path);
  train.verify();
  CHECK(train.n_bytes() + TokenDataset(result.parts[1].path).n_bytes() == result.n_bytes);
  CHECK(result.n_bytes == TokenDataset(directory.file("shards")).n_bytes());
}

TEST_CASE("tokenize: a split is the same for any number of threads", "[data]") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, long_text() + many_documents());
  options.validation = 0.1;
  std::vector<std::string> made;
  for (const int threads : {1, 3}) {
    options.threads = threads;
    options.out = directory.file("split-" + std::to_string(threads));
    tokenize_files(posix_io(), options);
    made.push_back(fingerprint_of(options.out + "/train") + fingerprint_of(options.out + "/valid"));
  }
  CHECK(made[0] == made[1]);
}

TEST_CASE("tokenize: one document gives its end to validation", "[data]") {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>('a' + i * i % 23);
  auto options = options_for(directory, text);
  tokenize_files(posix_io(), options);
  const auto whole = all_tokens(TokenDataset(directory.file("shards")));
  options.validation = 0.05;
  for (const int64_t shard_tokens : {7, 100, 950, 951, 100'000}) {
    CAPTURE(shard_tokens);
    options.shard_tokens = shard_tokens;
    options.out = directory.file("split-" + std::to_string(shard_tokens));
    const auto result = tokenize_files(posix_io(), options);
    const TokenDataset train(result.parts[0].path);
    const TokenDataset validation(result.parts[1].path);
    train.verify();
    validation.verify();
    CHECK(validation.n_tokens() == 50);
    CHECK(train.n_documents() == 1);
    CHECK(validation.document_starts(0, 50) == std::vector<int64_t>{0});
    auto joined = all_tokens(train);
    const auto end = all_tokens(validation);
    joined.insert(joined.end(), end.begin(), end.end());
    CHECK(joined == whole);
    CHECK(train.n_bytes() + validation.n_bytes() == 1000);
    CHECK(names_in(options.out) == std::vector<std::string>{"train", "valid"});
  }
}

TEST_CASE("tokenize: a split refuses an existing part and replaces it when asked", "[data]") {
  const TemporaryDirectory directory;
  auto options = options_for(directory, many_documents());
  options.validation = 0.05;
  tokenize_files(posix_io(), options);
  const auto before = fingerprint_of(options.out + "/valid");
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("shards/train"));
  options.existing = Existing::kReplace;
  options.validation = 0.5;
  tokenize_files(posix_io(), options);
  CHECK(fingerprint_of(options.out + "/valid") != before);
  options.validation = 1;
  CHECK_THROWS_WITH(tokenize_files(posix_io(), options), Contains("validation share in [0, 1)"));
}

}  // namespace dsmoe
