#include "common/progress.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

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

TEST_CASE("progress: a bar of work shows share and remaining time, no rate") {
  CHECK(progress_line("budget", 30, 120, 2.0, ProgressUnit::kWork) ==
        "budget [#######                       ]  25 %  eta 0:06");
}

TEST_CASE("ProgressBar: clear removes the line, and a bar that was cleared ends without a line") {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* terminal = open_memstream(&text, &size);
  {
    ProgressBar bar("eval", terminal, ProgressUnit::kWork);
    bar.clear();
    std::fflush(terminal);
    CHECK(size == 0);
    bar.show(1, 1);
    bar.clear();
  }
  std::fclose(terminal);
  const std::string drawn(text, size);
  std::free(text);
  CHECK(drawn.substr(0, 6) == "\reval ");
  CHECK(drawn.substr(drawn.size() - 4) == "\r\x1b[K");
}

}  // namespace dsmoe
