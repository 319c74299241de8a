#include "common/counts.h"

#include <catch2/catch.hpp>

namespace dsmoe {
namespace {

TEST_CASE("parse_count: reads digits, underscores, exponents and suffixes", "[common][counts]") {
  const std::pair<const char*, int64_t> cases[] = {{"0", 0},
                                                   {"0.0", 0},
                                                   {"12", 12},
                                                   {"-3", -3},
                                                   {"010", 10},
                                                   {"1_000_000", 1'000'000},
                                                   {"10k", 10'000},
                                                   {"10K", 10'000},
                                                   {"2M", 2'000'000},
                                                   {"2m", 2'000'000},
                                                   {"7b", 7'000'000'000},
                                                   {"7G", 7'000'000'000},
                                                   {"1.5T", 1'500'000'000'000},
                                                   {"0.5M", 500'000},
                                                   {"1e9", 1'000'000'000},
                                                   {"1E5", 100'000},
                                                   {"1e+2", 100},
                                                   {"2.5e3k", 2'500'000},
                                                   {"1.250", -1},
                                                   {"100e-2", 1},
                                                   {"9223372036854775807", INT64_MAX},
                                                   {"-9223372036854775808", INT64_MIN}};
  for (const auto& [text, expected] : cases) {
    CAPTURE(text);
    if (expected == -1) {
      CHECK_FALSE(parse_count(text).has_value());
    } else {
      CHECK(parse_count(text) == std::optional(expected));
    }
  }
}

TEST_CASE("parse_count: refuses what is no exact integer", "[common][counts]") {
  for (const char* text : {"",
                           "k",
                           "1.5",
                           "1.2345k",
                           "1e-1",
                           "0.1",
                           "1e",
                           "1ee2",
                           "_1",
                           "1_",
                           "1__0",
                           "1 k",
                           "1kk",
                           "1x",
                           "0x10",
                           "+1",
                           "--1",
                           "1.k",
                           ".5k",
                           "1,000",
                           "1e19",
                           "9223372036854775808",
                           "99999999999999999999",
                           "1e999999999999",
                           "inf",
                           "nan"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_count(text).has_value());
  }
}

TEST_CASE("short_count: three digits and a suffix", "[common][counts]") {
  CHECK(short_count(0) == "0");
  CHECK(short_count(987) == "987");
  CHECK(short_count(1500) == "1.5k");
  CHECK(short_count(999'600) == "1M");
  CHECK(short_count(20'345'678) == "20.3M");
  CHECK(short_count(7.2412e9) == "7.24B");
  CHECK(short_count(1.5e12) == "1.5T");
}

}  // namespace
}  // namespace dsmoe
