#include "train/tensorboard.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/temporary_directory.h"
#include "train/train_metrics.h"

namespace dsmoe {
namespace {

// The masked checksum of the record format, written out again.
uint32_t masked(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class Value>
Value read_at(const std::string& bytes, size_t at) {
  Value value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

std::vector<std::string> read_records(const std::string& bytes) {
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = read_at<uint64_t>(bytes, at);
    CHECK(read_at<uint32_t>(bytes, at + 8) == masked(bytes.substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    CHECK(read_at<uint32_t>(bytes, at + 12 + length) == masked(records.back()));
    at += 16 + length;
  }
  return records;
}

// What follows the key and the eight bytes of the wall time.
std::vector<int> bytes_after_time(const std::string& record) {
  std::vector<int> bytes;
  for (size_t i = 9; i < record.size(); ++i) bytes.push_back(static_cast<unsigned char>(record[i]));
  return bytes;
}

TEST_CASE("crc32c: gives the published check value", "[train][tensorboard]") {
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);  // RFC 3720, B.4
}

TEST_CASE("TensorboardWriter: records are framed and encoded as TensorBoard reads them",
          "[train][tensorboard]") {
  const TemporaryDirectory directory;
  {
    TensorboardWriter writer(posix_io(), directory.file("events"), 7);
    writer.add(300, {{"loss", 1.5}});
  }
  std::vector<std::string> files;
  for (const auto& item : std::filesystem::directory_iterator(directory.file("events"))) {
    files.push_back(item.path().string());
  }
  REQUIRE(files.size() == 1);
  CHECK(files[0].find("tfevents") != std::string::npos);
  const auto records = read_records(read_file(posix_io(), files[0], 1 << 20));
  REQUIRE(records.size() == 3);
  CHECK(bytes_after_time(records[0]) ==
        std::vector<int>{
            0x1a, 0x0d, 'b', 'r', 'a', 'i', 'n', '.', 'E', 'v', 'e', 'n', 't', ':', '2'});
  // Step 8; session_log {status START}, as TensorBoard's own classes write it.
  CHECK(bytes_after_time(records[1]) == std::vector<int>{0x10, 0x08, 0x3a, 0x02, 0x08, 0x01});
  // Step 300 as varint; summary {value {tag "loss", simple_value 1.5}}.
  CHECK(bytes_after_time(records[2]) == std::vector<int>{0x10,
                                                         0xac,
                                                         0x02,
                                                         0x2a,
                                                         0x0d,
                                                         0x0a,
                                                         0x0b,
                                                         0x0a,
                                                         0x04,
                                                         'l',
                                                         'o',
                                                         's',
                                                         's',
                                                         0x15,
                                                         0x00,
                                                         0x00,
                                                         0xc0,
                                                         0x3f});
}

// A field of a protocol buffer: its bytes, or its number.
struct Field {
  uint64_t number = 0;
  std::string bytes = {};
  uint64_t value = 0;
};

std::vector<Field> fields_of(const std::string& message) {
  std::vector<Field> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    Field field{.number = key / 8};
    const uint64_t type = key % 8;
    if (type == 0) {
      field.value = varint();
    } else {
      const size_t size = type == 1 ? 8 : type == 5 ? 4 : varint();
      field.bytes = message.substr(at, size);
      at += size;
    }
    fields.push_back(field);
  }
  return fields;
}

// The only field of that number.
Field field_of(const std::string& message, uint64_t number) {
  std::vector<Field> found;
  for (const auto& field : fields_of(message)) {
    if (field.number == number) found.push_back(field);
  }
  REQUIRE(found.size() == 1);
  return found[0];
}

std::vector<std::string> records_in(const std::string& folder) {
  std::vector<std::string> records;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    if (!item.is_regular_file()) continue;
    for (const auto& one : read_records(read_file(posix_io(), item.path().string(), 1 << 20))) {
      records.push_back(one);
    }
  }
  return records;
}

// The numbers of a folder's scalars by tag.
std::map<std::string, float> scalars_in(const std::string& folder) {
  std::map<std::string, float> scalars;
  for (const auto& record : records_in(folder)) {
    for (const auto& part : fields_of(record)) {
      if (part.number != 5) continue;
      for (const auto& value : fields_of(part.bytes)) {
        for (const auto& field : fields_of(value.bytes)) {
          if (field.number != 2) continue;
          scalars[field_of(value.bytes, 1).bytes] = read_at<float>(field.bytes, 0);
        }
      }
    }
  }
  return scalars;
}

std::vector<double> doubles_of(const std::string& bytes) {
  std::vector<double> values(bytes.size() / 8);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST_CASE("TensorboardWriter: a text is a string tensor of the plugin text",
          "[train][tensorboard]") {
  const TemporaryDirectory directory;
  {
    TensorboardWriter writer(posix_io(), directory.file("events"), 0, [] { return 1234.5; });
    writer.add_text(3, "config", "    seed: 1");
  }
  const auto event = records_in(directory.file("events")).at(2);
  CHECK(doubles_of(field_of(event, 1).bytes) == std::vector<double>{1234.5});
  CHECK(field_of(event, 2).value == 3);
  const auto value = field_of(field_of(event, 5).bytes, 1).bytes;
  CHECK(field_of(value, 1).bytes == "config/text_summary");
  const auto tensor = field_of(value, 8).bytes;
  CHECK(field_of(tensor, 1).value == 7);                                        // DT_STRING
  CHECK(field_of(field_of(field_of(tensor, 2).bytes, 2).bytes, 1).value == 1);  // one element
  CHECK(field_of(tensor, 8).bytes == "    seed: 1");
  CHECK(field_of(field_of(field_of(value, 9).bytes, 1).bytes, 1).bytes == "text");
}

TEST_CASE("TensorboardWriter: bars are a histogram with one bin of width 1 each",
          "[train][tensorboard]") {
  const TemporaryDirectory directory;
  {
    TensorboardWriter writer(posix_io(), directory.file("events"), 0);
    writer.add_bars(3, "load", {0.5, 0.0, 0.25});
  }
  const auto event = records_in(directory.file("events")).at(2);
  const auto value = field_of(field_of(event, 5).bytes, 1).bytes;
  CHECK(field_of(value, 1).bytes == "load");
  const auto histogram = field_of(value, 5).bytes;
  const auto number = [&](uint64_t field) { return doubles_of(field_of(histogram, field).bytes); };
  CHECK(number(1) == std::vector<double>{0});     // min
  CHECK(number(2) == std::vector<double>{3});     // max
  CHECK(number(3) == std::vector<double>{0.75});  // num
  CHECK(number(4) == std::vector<double>{0.5 * 0.5 + 2.5 * 0.25});
  CHECK(number(5) == std::vector<double>{0.25 * 0.5 + 6.25 * 0.25});
  CHECK(number(6) == std::vector<double>{1, 2, 3});  // ends of the bins
  CHECK(number(7) == std::vector<double>{0.5, 0.0, 0.25});
}

TEST_CASE("TrainMetrics: training and validation are runs of TensorBoard with equal names",
          "[train][tensorboard]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  make_directories(posix_io(), run);
  {
    TrainMetrics metrics(posix_io(), run, 0, 10, {"all", "moe:top_k=2;moa:all"});
    metrics.add_config("seed: 1\nmodel:\n  d_model: 8\n");
    StepMetrics step;
    step.step = 1;
    step.tokens = 64;
    step.loss_terms = {{.name = "lm", .value = 2.0},
                       {.name = "moe_mi", .value = -1.0, .weight = 0.5, .bound = -4.0}};
    step.flops_per_second = 3e9;
    step.mfu = 0.25;
    step.peak_memory_bytes = 1 << 20;
    LayerRoutingStats layer;
    layer.load = {0.75, 0.25};
    step.routing.moe = {layer};
    metrics.add(step);
    metrics.add_event(1, "spike", "a text");
    metrics.add_stop(1, "a signal");
    PolicyValidation validation;
    validation.score.loss = 3.0;
    metrics.add_validation(1, {validation, validation});
  }
  const auto train = scalars_in(run + "/tensorboard/train");
  CHECK(train.at("loss/lm") == 2.0f);
  CHECK(train.at("perplexity") == Approx(std::exp(2.0)));
  CHECK(train.at("share_of_bound/moe_mi") == 0.25f);
  CHECK(train.at("speed/flops_per_second") == 3e9f);
  CHECK(train.at("speed/mfu") == 0.25f);
  CHECK(train.at("memory/peak_bytes") == float{1 << 20});
  for (const char* policy : {"all", "moe:top_k=2;moa:all"}) {
    const auto validation = scalars_in(run + "/tensorboard/validation/" + policy);
    CHECK(validation.at("loss/lm") == 3.0f);
    CHECK(validation.at("perplexity") == Approx(std::exp(3.0)));
  }
  std::string all;
  for (const auto& record : records_in(run + "/tensorboard/train")) all += record;
  CHECK(all.find("    seed: 1\n    model:\n      d_model: 8\n") != std::string::npos);
  CHECK(all.find("**spike** a text") != std::string::npos);
  CHECK(all.find("**stop** a signal") != std::string::npos);
  CHECK(all.find("moe_load_by_expert/layer_0") != std::string::npos);
}

}  // namespace
}  // namespace dsmoe
