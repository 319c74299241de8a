#include "data/training_data.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "data/megatron_source.h"
#include "data/tokenize.h"
#include "support/megatron_pair.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;
using Starts = std::vector<int64_t>;

std::string make_shards(const TemporaryDirectory& directory,
                        const std::string& name,
                        const std::string& text,
                        const std::string& tokenizer = "bytes") {
  write_file(posix_io(), directory.file(name + ".txt"), text);
  TokenizeOptions options;
  options.inputs = {directory.file(name + ".txt")};
  options.out = directory.file(name);
  options.tokenizer = tokenizer;
  options.shard_tokens = 5;
  tokenize_files(posix_io(), options);
  return options.out;
}

Ids tokens_in_order(const TokenSource& source) {
  Ids ids(static_cast<size_t>(source.n_tokens()));
  source.copy(0, ids);
  return ids;
}

}  // namespace

TEST_CASE("Megatron source: the stream is the sequences one after another, in both widths") {
  const TemporaryDirectory directory;
  for (const int width : {2, 4}) {
    const auto prefix = directory.file("pair" + std::to_string(width));
    write_megatron_pair(prefix, make_megatron_pair({{{1, 256, 3}}, {{4}, {5, 6}}, {{7}}}, width));
    const MegatronSource source(posix_io(), prefix, 257);
    CHECK(tokens_in_order(source) == Ids{1, 256, 3, 4, 5, 6, 7});
    CHECK(source.n_documents() == 3);
    CHECK(source.document_starts(0, 7) == Starts{0, 3, 6});
    CHECK(source.document_starts(1, 6) == Starts{3});
    CHECK(source.document_starts(3, 4) == Starts{3});
    CHECK(source.document_starts(4, 6).empty());
    CHECK(source.documents_before(3) == 1);
    CHECK(source.documents_before(4) == 2);
    Ids part(2);
    CHECK_THROWS_WITH(source.copy(6, part), Contains("2 tokens from 6"));
    CHECK_THROWS_AS(source.copy(-1, part), Error);
  }
}

TEST_CASE("Megatron source: the error for half a pair names the other half") {
  const TemporaryDirectory directory;
  for (const std::string missing : {".idx", ".bin"}) {
    const auto prefix = directory.file("half" + missing);
    write_megatron_pair(prefix, make_megatron_pair({{{1, 2, 3}}}, 2));
    CHECK(MegatronSource::exists(prefix));
    std::filesystem::remove(prefix + missing);
    CHECK_THROWS_WITH(TrainingData({prefix}, {}, "bytes"), Contains(prefix + missing));
  }
  CHECK_FALSE(MegatronSource::exists(directory.file("neither")));
}

TEST_CASE("Megatron source: ids outside the vocabulary and files of another size are refused") {
  const TemporaryDirectory directory;
  const auto prefix = directory.file("pair");
  write_megatron_pair(prefix, make_megatron_pair({{{1, 2, -1}}}, 4));
  CHECK_THROWS_WITH(tokens_in_order(MegatronSource(posix_io(), prefix, 257)),
                    Contains("got -1 at token 2"));
  write_megatron_pair(prefix, make_megatron_pair({{{1, 257, 2}}}, 2));
  const MegatronSource source(posix_io(), prefix, 257);
  CHECK_THROWS_WITH(tokens_in_order(source), Contains("got 257 at token 1"));
  std::filesystem::resize_file(prefix + ".bin", 5);
  Ids part(3);
  CHECK_THROWS_WITH(source.copy(0, part), Contains("ends early"));
  CHECK_THROWS_WITH(MegatronSource(posix_io(), prefix, 257),
                    Contains("3 tokens of 2 bytes, got 5 bytes"));
  std::filesystem::remove(prefix + ".idx");
  CHECK_THROWS_WITH(MegatronSource(posix_io(), prefix, 257), Contains("pair.idx"));
}

TEST_CASE("Megatron source: the hash changes with the tokens and with the documents") {
  const TemporaryDirectory directory;
  const auto hash_of = [&](const MegatronDocuments& documents) {
    write_megatron_pair(directory.file("pair"), make_megatron_pair(documents, 2));
    return MegatronSource(posix_io(), directory.file("pair"), 257).hash();
  };
  const auto hash = hash_of({{{1, 2}}, {{3}}});
  CHECK(hash.size() == 32);
  CHECK(hash_of({{{1, 2}}, {{3}}}) == hash);
  CHECK(hash_of({{{1, 2}}, {{4}}}) != hash);
  CHECK(hash_of({{{1, 2}, {3}}}) != hash);
}

TEST_CASE("training data: opens shards and Megatron pairs under one tokenizer") {
  const TemporaryDirectory directory;
  const auto shards = make_shards(directory, "a", "some text");
  const auto pair = directory.file("pair");
  write_megatron_pair(pair, make_megatron_pair({{{1, 2, 3}}}, 2));
  const TrainingData mixed({shards, pair}, {3, 1}, "");
  REQUIRE(mixed.sources().size() == 2);
  CHECK(mixed.sources()[0].weight == 3);
  CHECK(mixed.sources()[0].source->n_tokens() == 10);
  CHECK(tokens_in_order(*mixed.sources()[1].source) == Ids{1, 2, 3});
  CHECK(mixed.tokenizer().fingerprint() == "bytes-257");

  CHECK(TrainingData({pair}, {}, "bytes").tokenizer().vocab_size() == 257);
  CHECK(TrainingData({pair}, {}, shards).tokenizer().vocab_size() == 257);
  CHECK(TrainingData({shards}, {}, "").hash() == mixed.sources()[0].source->hash());
  CHECK(TrainingData({pair, shards}, {}, "").hash() != mixed.hash());
}

TEST_CASE("training data: refuses corpora that do not fit together") {
  const TemporaryDirectory directory;
  const auto shards = make_shards(directory, "a", "some text");
  const auto others = make_shards(directory, "b", "some text", "chars");
  const auto pair = directory.file("pair");
  write_megatron_pair(pair, make_megatron_pair({{{1, 2, 3}}}, 2));
  CHECK_THROWS_WITH(TrainingData({shards, others}, {}, ""),
                    Contains("tokenizer bytes-257") && Contains(others));
  CHECK_THROWS_WITH(TrainingData({others}, {}, "bytes"), Contains("bytes-257"));
  CHECK_THROWS_WITH(TrainingData({pair}, {}, ""), Contains("data.tokenizer"));
  CHECK_THROWS_WITH(TrainingData({pair}, {}, "words"), Contains("'words'"));
  CHECK_THROWS_WITH(TrainingData({shards, pair}, {1, 0}, ""), Contains("above 0, got 0"));
  CHECK_THROWS_WITH(TrainingData({directory.file("none")}, {}, ""), Contains("none"));
}

TEST_CASE("training data: for a text file the error has the command that makes shards") {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("my text.txt"), "some text");
  const auto path = directory.file("my text.txt");
  const auto out = directory.file("my text-shards");
  CHECK_THROWS_WITH(
      TrainingData({path}, {}, ""),
      Contains("'dsmoe tokenize --input '" + path + "' --tokenizer bytes --validation 5% --out '" +
               out + "'', then set data.train: " + out + "/train and data.validation: " + out +
               "/valid"));
  TokenizeOptions options;
  options.inputs = {path};
  options.out = out;
  options.validation = 0.2;
  tokenize_files(posix_io(), options);
  CHECK(TrainingData({out + "/train"}, {}, "").sources().size() == 1);
  CHECK_THROWS_WITH(TrainingData({out}, {}, ""),
                    Contains("holds two data sets; set data.train: " + out + "/train"));
}

}  // namespace dsmoe
