#include "common/config_reader.h"

#include <stdlib.h>

#include <catch2/catch.hpp>

#include "common/error.h"

using namespace dsmoe;

namespace {

enum class Colour { kRed, kBlue };

struct Settings {
  int64_t steps = 10;
  double rate = 0.5;
  bool on = false;
  std::string name = "a: b";
  std::vector<std::string> files{"x", "y"};
  std::vector<double> shares{0.1, 2};
  Colour colour = Colour::kRed;
  int64_t depth = 1;
};

Describe describe_settings(Settings& s) {
  return [&s](ConfigVisitor& v) {
    v.begin_section("train", "training");
    v.integer("steps", s.steps, 1, 100, {.doc = "optimizer steps", .resume = ResumeRule::kApplied});
    v.real("rate", s.rate, 0.0, 1.0, {.doc = "rate"});
    v.boolean("on", s.on, {.doc = "switch"});
    v.text("name", s.name, {.doc = "name"});
    v.text_list("files", s.files, {.doc = "files"});
    v.number_list("shares", s.shares, 0.0, 9.0, {.doc = "shares"});
    choice(
        v, "colour", s.colour, {{"red", Colour::kRed}, {"blue", Colour::kBlue}}, {.doc = "colour"});
    v.begin_section("inner", "nested");
    v.integer("depth", s.depth, 0, 9, {.doc = "depth", .unit = "levels"});
    v.end_section();
    v.end_section();
  };
}

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Settings settings;
  try {
    read_config_text(text, "t.yaml", overrides, describe_settings(settings));
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("config: a reader returns the keys that the text and the overrides set") {
  using Keys = std::set<std::string>;
  Settings s;
  const auto read = [&](const std::string& text, const std::vector<std::string>& overrides) {
    return read_config_text(text, "t.yaml", overrides, describe_settings(s)).names();
  };
  CHECK(read("{}", {}).empty());
  CHECK(read("train: {}", {}).empty());
  CHECK(read("train: {steps: 10, files: [a]}", {}) == Keys{"train.steps", "train.files"});
  CHECK(read("train: {inner: {depth: 1}}", {"train.rate=0.5", "train.steps=3"}) ==
        Keys{"train.inner.depth", "train.rate", "train.steps"});
  CHECK(config_keys(describe_settings(s)) == std::vector<std::string>{"train.steps",
                                                                      "train.rate",
                                                                      "train.on",
                                                                      "train.name",
                                                                      "train.files",
                                                                      "train.shares",
                                                                      "train.colour",
                                                                      "train.inner.depth"});
}

TEST_CASE("config: reads lists of texts and numbers; reads one text as a list of one",
          "[common][config]") {
  Settings s;
  read_config_text("train: {files: a b, shares: [1, 2.5e-1]}", "t.yaml", {}, describe_settings(s));
  CHECK(s.files == std::vector<std::string>{"a b"});
  CHECK(s.shares == std::vector<double>{1, 0.25});
  read_config_text("train: {files: ''}", "t.yaml", {"train.shares=[3]"}, describe_settings(s));
  CHECK(s.files.empty());
  CHECK(s.shares == std::vector<double>{3});
  s.shares = {0.1 + 0.2, 1e-9};
  Settings read;
  for (const auto& text :
       {config_to_yaml(describe_settings(s)), config_to_json(describe_settings(s))}) {
    read.shares = {};
    read_config_text(text, "written", {}, describe_settings(read));
    CHECK(read.shares == s.shares);
  }
  CHECK(error_of("train: {shares: 1}") ==
        "t.yaml:1: train.shares: expected a list of numbers, got '1'");
  for (const std::string bad : {"x", "10", "-1", ".nan", "[1]", "1x"}) {
    INFO(bad);
    CHECK_THAT(error_of("train: {shares: [1, " + bad + "]}"),
               Catch::Contains("train.shares: expected numbers in [0, 9]"));
  }
}

TEST_CASE("config: values, missing keys and overrides are read in order", "[common][config]") {
  Settings s;
  read_config_text("train: {steps: 7, on: true, files: [p], colour: blue}",
                   "t.yaml",
                   {"train.steps=8", "train.inner.depth=3", "train.name=x=y", "train.files=[q, r]"},
                   describe_settings(s));
  REQUIRE(s.steps == 8);
  REQUIRE(s.rate == 0.5);
  REQUIRE(s.on);
  REQUIRE(s.name == "x=y");
  REQUIRE(s.files == std::vector<std::string>{"q", "r"});
  REQUIRE(s.colour == Colour::kBlue);
  REQUIRE(s.depth == 3);
}

TEST_CASE("config: the resolved YAML reads back to the same values", "[common][config]") {
  Settings s;
  s.rate = 0.1;
  s.name = "true # \"q\"";
  const std::string yaml = config_to_yaml(describe_settings(s));
  Settings read;
  read_config_text(yaml, "t.yaml", {}, describe_settings(read));
  REQUIRE(read.rate == 0.1);
  REQUIRE(read.name == s.name);
  REQUIRE(compare_configs(describe_settings(s), describe_settings(read)).empty());
}

TEST_CASE("config: bad input names line, key and what was expected", "[common][config]") {
  using Catch::Contains;
  CHECK_THAT(error_of("train:\n  stepz: 1"),
             Contains("t.yaml:2: train.stepz: unknown key") && Contains("nearest is train.steps"));
  CHECK_THAT(error_of("trian: {steps: 1}"), Contains("unknown key; the nearest is train"));
  CHECK_THAT(error_of("train: {inner: {dept: 1}}"), Contains("nearest is train.inner.depth"));
  CHECK_THAT(error_of("train:\n  steps: 1\n  steps: 2"),
             Contains("t.yaml:3: train.steps") && Contains("twice"));
  CHECK_THAT(error_of("train: {steps: many}"), Contains("expected an integer, got 'many'"));
  CHECK_THAT(error_of("train: {steps: 1.5}"), Contains("expected an integer"));
  CHECK_THAT(error_of("train: {steps: [1]}"), Contains("expected an integer, got 'a list'"));
  CHECK_THAT(error_of("train: {steps: }"), Contains("expected an integer, got 'nothing'"));
  CHECK_THAT(error_of("train: {steps: 101}"), Contains("in [1, 100], got '101'"));
  CHECK_THAT(error_of("train: {steps: 99999999999999999999}"), Contains("expected an integer"));
  CHECK_THAT(error_of("train: {rate: .nan}"), Contains("expected a finite number"));
  CHECK_THAT(error_of("train: {rate: nan}"), Contains("expected a finite number"));
  CHECK_THAT(error_of("train: {rate: 1.01}"), Contains("in [0, 1]"));
  CHECK_THAT(error_of("train: {on: yes}"), Contains("expected true or false, got 'yes'"));
  CHECK_THAT(error_of("train: {colour: green}"), Contains("expected one of red, blue"));
  CHECK_THAT(error_of("train: {files: {a: x}}"), Contains("expected a list of texts"));
  CHECK_THAT(error_of("train: 3"), Contains("expected a section of keys"));
  CHECK_THAT(error_of("train: {}", {"train.steps=0"}),
             Contains("--train.steps: expected a value in"));
  CHECK_THAT(error_of("train: {}", {"train.stepz=1"}), Contains("--train.stepz: unknown key"));
  CHECK_THAT(error_of("train: {}", {"train.steps"}), Contains("expected section.key=value"));
}

TEST_CASE("config: text that is not one plain document is refused", "[common][config]") {
  using Catch::Contains;
  CHECK_THAT(error_of(""), Contains("empty text"));
  CHECK_THAT(error_of("# nothing\n"), Contains("empty text"));
  CHECK_THAT(error_of("train: {}\n---\ntrain: {}"), Contains("expected one document, got 2"));
  CHECK_THAT(error_of("- a"), Contains("expected sections"));
  CHECK_THAT(error_of("train: &a {steps: 1}"), Contains("got an anchor"));
  CHECK_THAT(error_of("train: {steps: 1"), Contains("not YAML"));
  CHECK_THAT(error_of(std::string(40, '[') + std::string(40, ']')),
             Contains("more than 32 levels"));
  CHECK_THAT(error_of(std::string((1 << 20) + 1, ' ')), Contains("at most"));
}

TEST_CASE("config: YAML that a library accepts or fails on is refused in one line",
          "[common][config]") {
  using Catch::Contains;
  const auto is_one_line = [](const std::string& text) {
    return text != "no error" && text.find('\n') == std::string::npos;
  };
  CHECK_THAT(error_of("train:\n\tsteps: 1"), Contains("t.yaml:2"));
  CHECK_THAT(error_of("train: {name: \"\xff\xfe\"}"), Contains("t.yaml: expected UTF-8"));
  CHECK_THAT(error_of("train: {}", {"train.name=\xff"}), Contains("override: expected UTF-8"));
  CHECK_THAT(error_of("train: {<<: {steps: 1}}"), Contains("train.<<: unknown key"));
  CHECK_THAT(error_of("train: {? [a] : 1}"), Contains("unknown key"));
  for (const int depth : {33, 999, 10'000}) {
    const auto n = static_cast<size_t>(depth);
    CHECK(is_one_line(error_of(std::string(n, '[') + std::string(n, ']'))));
    CHECK(is_one_line(error_of(std::string(n, '['))));
    std::string nested;
    for (size_t i = 0; i < n; ++i) nested += "{a: ";
    CHECK(is_one_line(error_of(nested + "1" + std::string(n, '}'))));
  }
  CHECK_THAT(error_of("train: {name: '" + std::string(10 << 20, 'x') + "'}"), Contains("at most"));
  // Nine lists of nine aliases each: 442 bytes that expand to millions of nodes.
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 9; ++j) bomb += "*a" + std::to_string(i - 1) + (j < 8 ? ", " : "]\n");
  }
  CHECK_THAT(error_of(bomb), Contains("got an anchor"));
}

TEST_CASE("config: an override is a list only where the key is one", "[common][config]") {
  Settings s;
  read_config_text("train: {}",
                   "t.yaml",
                   {"train.name=[a, b]", "train.files=[c, d]", "train.shares=[1]"},
                   describe_settings(s));
  CHECK(s.name == "[a, b]");
  CHECK(s.files == std::vector<std::string>{"c", "d"});
  CHECK(s.shares == std::vector<double>{1});
  CHECK_THAT(error_of("train: {}", {"train.files=[c"}), Catch::Contains("--train.files: expected"));
  read_config_text(
      "train: {}", "t.yaml", {"train.name=[", "train.files={x}"}, describe_settings(s));
  CHECK(s.name == "[");
  CHECK(s.files == std::vector<std::string>{"{x}"});
}

TEST_CASE("config: paths are expanded when read, and written so that they read back",
          "[common][config]") {
  ::setenv("HOME", "/home/ada", 1);
  ::unsetenv("DSMOE_TEST_NONE");
  std::string run;
  std::vector<std::string> files;
  const auto describe_paths = [&](ConfigVisitor& v) {
    v.path("run", run, {.doc = "run"});
    v.path_list("files", files, {.doc = "files"});
  };
  const auto read = [&](const std::string& text, const std::vector<std::string>& overrides = {}) {
    read_config_text(text, "t.yaml", overrides, describe_paths);
  };
  read("run: ~/x\nfiles: [$HOME/a, '~']");
  CHECK(run == "/home/ada/x");
  CHECK(files == std::vector<std::string>{"/home/ada/a", "/home/ada"});
  read("run: x", {"run=~/y", "files=[~/a]"});
  CHECK(run == "/home/ada/y");
  CHECK(files == std::vector<std::string>{"/home/ada/a"});
  CHECK_THROWS_WITH(read("files: x\nrun: $DSMOE_TEST_NONE/x"),
                    Catch::Contains("t.yaml:2: run: ") && Catch::Contains("DSMOE_TEST_NONE"));
  CHECK_THROWS_WITH(read("files: [a, ~b/c]"), Catch::Contains("t.yaml:1: files: "));
  CHECK_THROWS_WITH(read("run: x", {"run=~b"}), Catch::Contains("--run: "));

  run = "/a$HOME/$$";
  files = {"$x", "y"};
  const auto yaml = config_to_yaml(describe_paths);
  const auto json = config_to_json(describe_paths);
  CHECK_THAT(json, Catch::Contains("\"/a$HOME/$$\""));
  for (const bool is_yaml : {true, false}) {
    run.clear();
    files.clear();
    read_config_text(is_yaml ? yaml : json,
                     "written",
                     {},
                     describe_paths,
                     is_yaml ? PathSyntax::kExpanded : PathSyntax::kLiteral);
    CHECK(run == "/a$HOME/$$");
    CHECK(files == std::vector<std::string>{"$x", "y"});
  }
  CHECK_THAT(config_to_markdown(describe_paths),
             Catch::Contains("| `run` | path |") && Catch::Contains("| `files` | list of paths |"));
}

TEST_CASE("config: octal-looking integers are decimal", "[common][config]") {
  Settings s;
  read_config_text("train: {steps: 010}", "t.yaml", {}, describe_settings(s));
  REQUIRE(s.steps == 10);
}

TEST_CASE("config: changes carry their resume rule; the table lists every key",
          "[common][config]") {
  Settings before;
  Settings after;
  after.steps = 11;
  after.depth = 2;
  const auto changes = compare_configs(describe_settings(before), describe_settings(after));
  REQUIRE(changes.size() == 2);
  REQUIRE(changes[0].key == "train.steps");
  REQUIRE(changes[0].old_value == "10");
  REQUIRE(changes[0].rule == ResumeRule::kApplied);
  REQUIRE(changes[1].key == "train.inner.depth");
  REQUIRE(changes[1].rule == ResumeRule::kFixed);
  const std::string table = config_to_markdown(describe_settings(before));
  REQUIRE_THAT(
      table,
      Catch::Contains("| `train.inner.depth` | integer | levels | `1` | 0 to 9 | fixed | depth |"));
}

namespace {

constexpr KeyAlias kAliases[] = {{"n_steps", "train.steps"},
                                 {"lr", "train.rate"},
                                 {"title", "train.name", "", "the {}"},
                                 {"min_rate", "", "write train.rate"}};
constexpr SectionAlias kSectionAliases[] = {{"training", "train"}, {"inner", "train.inner"}};

GivenKeys read_aliases(Settings& settings,
                       const std::string& text,
                       const std::vector<std::string>& overrides = {}) {
  ReadOptions options;
  options.aliases = kAliases;
  options.section_aliases = kSectionAliases;
  return read_config_text(text, "t.yaml", overrides, describe_settings(settings), options);
}

std::vector<std::string> alias_faults(const std::string& text,
                                      const std::vector<std::string>& overrides = {}) {
  Settings settings;
  try {
    read_aliases(settings, text, overrides);
  } catch (const ConfigError& error) {
    return error.lines();
  }
  return {};
}

}  // namespace

TEST_CASE("config: every fault of a file is reported, in the order of the lines",
          "[common][config]") {
  const std::string text =
      "train:\n  steps: many\n  rate: 2\n  colour: green\n  stepz: 1\n  on: true\n  on: false\n"
      "other: 3\n";
  try {
    Settings settings;
    read_config_text(
        text, "t.yaml", {"train.inner.depth=x", "train.nme=y"}, describe_settings(settings));
    FAIL("no error");
  } catch (const ConfigError& error) {
    CHECK(error.lines() ==
          std::vector<std::string>{"t.yaml:2: train.steps: expected an integer, got 'many'",
                                   "t.yaml:3: train.rate: expected a value in [0, 1], got '2'",
                                   "t.yaml:4: train.colour: expected one of red, blue, got 'green'",
                                   "t.yaml:5: train.stepz: unknown key; the nearest is train.steps",
                                   "t.yaml:7: train.on: this key appears twice",
                                   "t.yaml:8: other: unknown key; no key has a name like it",
                                   "--train.nme: unknown key; the nearest is train.name",
                                   "--train.inner.depth: expected an integer, got 'x'",
                                   "t.yaml: 8 errors"});
    CHECK(std::string(error.what()).find("stepz") != std::string::npos);
  }
  CHECK(error_of("train: {steps: many}") ==
        "t.yaml:1: train.steps: expected an integer, got 'many'");
}

TEST_CASE("config: an unknown key is searched in all sections", "[common][config]") {
  using Catch::Contains;
  CHECK_THAT(error_of("depth: 1"), Contains("the nearest is train.inner.depth"));
  CHECK_THAT(error_of("train: {inner: {sharse: 1}}"), Contains("the nearest is train.shares"));
  CHECK_THAT(error_of("train: {learning_rate: 1}"), Contains("no key has a name like it"));
  CHECK_THAT(alias_faults("train: {n_stepz: 1}")[0], Contains("train.steps (n_steps)"));
}

TEST_CASE("config: an alias is read as its key, in any section and on the command line",
          "[common][config]") {
  for (const std::string text : {"n_steps: 7",
                                 "N-Steps: 7",
                                 "train: {n_steps: 7}",
                                 "train: {inner: {n_steps: 7}}",
                                 "training: {steps: 7}",
                                 "training: {n_steps: 7}",
                                 "steps: 7",
                                 "inner: {steps: 7}"}) {
    CAPTURE(text);
    Settings settings;
    const auto given = read_aliases(settings, text);
    CHECK(settings.steps == 7);
    CHECK(given.names() == std::set<std::string>{"train.steps"});
    CHECK(given.find("train.steps")->is_alias);
    REQUIRE(given.notes.size() == 1);
    CHECK_THAT(given.notes[0], Catch::Contains("is read as train.steps: 7"));
  }
  for (const std::string text : {"n_steps=7", "train.n_steps=7", "training.steps=7", "steps=7"}) {
    CAPTURE(text);
    Settings settings;
    const auto given = read_aliases(settings, "train: {steps: 3}", {text});
    CHECK(settings.steps == 7);
    REQUIRE(given.notes.size() == 1);
    CHECK(given.notes[0].starts_with("--" + text.substr(0, text.find('='))));
  }
  Settings settings;
  read_aliases(settings, "title: end\nlr: 0.25");
  CHECK(settings.name == "the end");
  CHECK(settings.rate == 0.25);
}

TEST_CASE("config: an alias beside its key, or of no key, is refused", "[common][config]") {
  CHECK(alias_faults("train: {steps: 3}\nn_steps: 3") ==
        std::vector<std::string>{
            "t.yaml:2: n_steps (train.steps): line 1 sets train.steps too; keep one of them"});
  CHECK(alias_faults("min_rate: 3") ==
        std::vector<std::string>{"t.yaml:1: min_rate: write train.rate"});
  CHECK(alias_faults("{}", {"min_rate=3"}) ==
        std::vector<std::string>{"--min_rate: write train.rate"});
  CHECK(alias_faults("lr: 3") ==
        std::vector<std::string>{"t.yaml:1: lr (train.rate): expected a value in [0, 1], got '3'"});
  // Without a table no name stands for another.
  CHECK(error_of("n_steps: 3") != "no error");
  CHECK(error_of("steps: 3") != "no error");
}

TEST_CASE("config: counts are read as people write them", "[common][config]") {
  Settings s;
  for (const std::string text : {"20", "2e1", "2_0", "0.02k", "20.0"}) {
    CAPTURE(text);
    s.steps = 0;
    read_config_text("train: {steps: " + text + "}", "t.yaml", {}, describe_settings(s));
    CHECK(s.steps == 20);
  }
  CHECK(error_of("train: {steps: 1k}") ==
        "t.yaml:1: train.steps: expected a value in [1, 100], got '1k'");
}

TEST_CASE("config: a given key that needs another value is listed, unless it is off",
          "[common][config]") {
  int64_t count = 3;
  double weight = 0.5;
  bool flag = true;
  const auto describe_needs = [&](ConfigVisitor& v) {
    v.begin_section("a", "a");
    v.integer("count", count, 0, 9, {.doc = "count", .needs = "a.kind: b"});
    v.real("weight", weight, 0, 9, {.doc = "weight", .needs = "a.kind: c"});
    v.boolean("flag", flag, {.doc = "flag", .needs = "a.kind: d"});
    v.end_section();
  };
  CHECK(unused_keys(describe_needs, {}).empty());
  CHECK(unused_keys(describe_needs, {"a.count", "a.weight", "a.flag"}) ==
        std::vector<std::string>{"a.count: this config does not use the key; it needs a.kind: b",
                                 "a.weight: this config does not use the key; it needs a.kind: c",
                                 "a.flag: this config does not use the key; it needs a.kind: d"});
  weight = 0;
  flag = false;
  CHECK(unused_keys(describe_needs, {"a.weight", "a.flag"}).empty());
}
