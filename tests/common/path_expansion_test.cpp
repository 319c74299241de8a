#include "common/path_expansion.h"

#include <stdlib.h>

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

// Changes the environment of this process; no other test reads it.
void set_variables() {
  ::setenv("HOME", "/home/ada", 1);
  ::setenv("DSMOE_TEST_DISK", "/disk", 1);
  ::setenv("DSMOE_TEST_EMPTY", "", 1);
  ::unsetenv("DSMOE_TEST_NONE");
}

}  // namespace

TEST_CASE("expand_path: ~ and variables expand as in a shell, everything else is kept",
          "[common]") {
  set_variables();
  for (const auto& [path, expected] : std::vector<std::pair<std::string, std::string>>{
           {"~", "/home/ada"},
           {"~/runs/a", "/home/ada/runs/a"},
           {"$DSMOE_TEST_DISK/a", "/disk/a"},
           {"x${DSMOE_TEST_DISK}y$DSMOE_TEST_DISK", "x/disky/disk"},
           {"a/~/b~", "a/~/b~"},
           {"./~", "./~"},
           {"$$HOME/$5/$", "$HOME/$5/$"},
           {"", ""},
           {"plain [x] {y}", "plain [x] {y}"}}) {
    CAPTURE(path);
    CHECK(expand_path(path, "run_dir") == expected);
  }
}

TEST_CASE("expand_path: a variable without a value is refused by key and name", "[common]") {
  set_variables();
  for (const auto& [path, says] : std::vector<std::pair<std::string, std::string>>{
           {"$DSMOE_TEST_NONE/a", "DSMOE_TEST_NONE"},
           {"a/${DSMOE_TEST_EMPTY}", "DSMOE_TEST_EMPTY"},
           {"~ada/runs", "~ada/runs"},
           {"~ada", "~ada"},
           {"${HOME", "${NAME}"},
           {"${}", "${NAME}"},
           {"${1}", "${NAME}"}}) {
    CAPTURE(path);
    CHECK_THROWS_WITH(expand_path(path, "run_dir"), Contains("run_dir: ") && Contains(says));
  }
  ::unsetenv("HOME");
  CHECK_THROWS_WITH(expand_path("~/a", "run_dir"), Contains("HOME"));
  set_variables();
}

TEST_CASE("quote_path: the quoted text reads back as the path", "[common]") {
  set_variables();
  for (const std::string path : {"a", "~", "~x/y", "$HOME", "$$", "a$b${c}", "/x y/[z]"}) {
    CAPTURE(path);
    const auto read = expand_path(quote_path(path), "key");
    CHECK((read == path || read == "./" + path));
    CHECK(read.starts_with('~') == false);
  }
}

TEST_CASE("expand_home: only ~ and ~/ are expanded; names that begin with ~ stay", "[common]") {
  set_variables();
  CHECK(expand_home("~/x", "--out") == "/home/ada/x");
  CHECK(expand_home("~", "--out") == "/home/ada");
  CHECK(expand_home("~$lock.txt", "--input") == "~$lock.txt");
  CHECK(expand_home("$HOME/x", "--out") == "$HOME/x");
  CHECK_THROWS_WITH(expand_home("~ada/x", "--out"), Contains("--out: ") && Contains("~ada/x"));
}

}  // namespace dsmoe
