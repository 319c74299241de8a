#include "common/progress.h"

#include <catch2/catch.hpp>

namespace dsmoe {

TEST_CASE("progress: a bar shows share, rate and remaining time") {
  CHECK(progress_line("t", 0, 100, 0) == "t [                              ]   0 %");
  CHECK(progress_line("t", 50'000'000, 200'000'000, 2.0) ==
        "t [#######                       ]  25 %  25.0 MB/s  eta 0:06");
  CHECK(progress_line("t", 7, 7, 1.0) ==
        "t [##############################] 100 %  0.0 MB/s  eta 0:00");
  CHECK(progress_line("t", 1'000'000, 90'000'000, 1.0) ==
        "t [                              ]   1 %  1.0 MB/s  eta 1:29");
  CHECK(progress_line("t", 0, 0, 1.0) == "t [##############################] 100 %");
}

}  // namespace dsmoe
