#include "report/run_report.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"
#include "formats/checkpoint_manifest.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

nlohmann::json step_line(int64_t step, size_t n_layers, size_t n_experts) {
  const std::vector<std::vector<double>> load(n_layers, std::vector<double>(n_experts, 0.25));
  return {{"step", step},
          {"tokens", step * 100},
          {"loss", 5.0 / static_cast<double>(step + 1)},
          {"lm_loss", 5.0 / static_cast<double>(step + 1)},
          {"moe_mi", -0.5},
          {"loss_weights", {{"lm_loss", 1.0}, {"moe_mi", 0.25}}},
          {"learning_rate", 1e-3},
          {"gradient_norm", 0.5},
          {"tokens_per_second", 1000.0},
          {"mfu", 0.5},
          {"peak_memory_bytes", 1 << 20},
          {"moe_routing",
           {{"load", load}, {"mutual_information", std::vector<double>(n_layers, 0.1)}}}};
}

// A run directory of `n_steps` logged steps and one validation.
void write_run(const std::string& directory, int64_t n_steps, size_t n_layers, size_t n_experts) {
  make_directories(posix_io(), directory);
  std::string lines;
  for (int64_t step = 1; step <= n_steps; ++step) {
    lines += step_line(step, n_layers, n_experts).dump() + "\n";
  }
  const nlohmann::json validation = {
      {"step", n_steps},
      {"validation_loss", 0.5},
      {"experts", {{"moe", {{{"active", 2.5}}, {{"active", 3.5}}}}}}};
  const nlohmann::json alarm = {{"step", 3}, {"event", "alarm"}, {"text", "expert 1 <dead>"}};
  write_file(posix_io(),
             directory + "/metrics.jsonl",
             lines + validation.dump() + "\n" + alarm.dump() + "\n");
  write_file(posix_io(), directory + "/config.yaml", "run_dir: a & b\n");
}

}  // namespace

TEST_CASE("read_run: sorts the lines by kind", "[report]") {
  const TemporaryDirectory directory;
  write_run(directory.file("run"), 10, 2, 4);
  const auto run = read_run(posix_io(), directory.file("run") + "/");
  CHECK(run.name == "run");
  CHECK(run.steps.size() == 10);
  CHECK(run.validations.size() == 1);
  CHECK(run.events.size() == 1);
  CHECK(run.config == "run_dir: a & b\n");
}

TEST_CASE("read_run: a torn last line is left out, any other is an error", "[report]") {
  const TemporaryDirectory directory;
  write_run(directory.file("run"), 3, 1, 2);
  const auto path = directory.file("run") + "/metrics.jsonl";
  const auto text = read_file(posix_io(), path, 1 << 20);
  write_file(posix_io(), path, text + "{\"step\": 4, \"lo");
  CHECK(read_run(posix_io(), directory.file("run")).steps.size() == 3);
  write_file(posix_io(), path, "no json\n" + text);
  REQUIRE_THROWS_WITH(read_run(posix_io(), directory.file("run")),
                      Catch::Contains("metrics.jsonl:1"));
  REQUIRE_THROWS_AS(read_run(posix_io(), directory.file("none")), Error);
}

TEST_CASE("runs_to_html: one self-contained page holds everything", "[report]") {
  const TemporaryDirectory directory;
  write_run(directory.file("first"), 10, 2, 4);
  write_run(directory.file("second"), 20, 1, 4);
  const nlohmann::json curve = {{"points",
                                 {{{"policy", "top_k=2"},
                                   {"perplexity", 4.8},
                                   {"active_parameters", 50},
                                   {"non_embedding_parameters", 100}}}}};
  const auto html = runs_to_html({read_run(posix_io(), directory.file("first")),
                                  read_run(posix_io(), directory.file("second"))},
                                 curve);
  CHECK(count_of(html, "http") == count_of(html, "http://www.w3.org/2000/svg"));
  CHECK(count_of(html, "<script") == 0);
  CHECK(count_of(html, "Load of FFN experts, layer") == 2 * 3);  // title and label of each
  CHECK(html.find("expert 1 &lt;dead&gt;") != std::string::npos);
  CHECK(html.find("Loss terms times their weights") != std::string::npos);
  CHECK(html.find("run_dir: a &amp; b") != std::string::npos);
  CHECK(html.find("<title>top_k=2</title>") != std::string::npos);
  CHECK(html.find("1.6487") != std::string::npos);  // perplexity of 0.5 nats
  CHECK(count_of(html, "<div") == count_of(html, "</div>"));
  CHECK(count_of(html, "<svg") == count_of(html, "</svg>"));
}

TEST_CASE("runs_to_html: sample texts are shown unchanged and never become HTML", "[report]") {
  const TemporaryDirectory directory;
  write_run(directory.file("run"), 2, 1, 2);
  const std::vector<RunRecord> runs = {read_run(posix_io(), directory.file("run"))};
  const auto html = runs_to_html(runs, nullptr, {{"a&b.txt", "\nline <b>\n  two"}, {"c", "three"}});
  CHECK(html.find("<h3>a&amp;b.txt</h3>\n<pre class=\"sample\">\n\nline &lt;b&gt;\n  two</pre>") !=
        std::string::npos);
  CHECK(html.find("three</pre>") != std::string::npos);
  CHECK(runs_to_html(runs, nullptr).find("Sample texts") == std::string::npos);
}

TEST_CASE("read_run: the environment is that of the newest checkpoint", "[report]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  write_run(run, 2, 1, 2);
  CHECK(read_run(posix_io(), run).environment.empty());
  write_file(posix_io(), run + "/config.yaml", "seed: 1\nthreads: 3\ndata:\n  threads: 7\n");
  for (const int64_t step : {5, 10}) {
    const auto checkpoint = run + fmt::format("/checkpoints/step-{}", step);
    make_directories(posix_io(), checkpoint);
    CheckpointManifest manifest;
    manifest.step = step;
    manifest.world_size = 4;
    manifest.code_version = "1.2";
    manifest.torch_version = "<3>";
    write_listed_files(posix_io(), checkpoint, {{"config.json", "{}"}}, manifest);
    write_manifest(posix_io(), checkpoint, manifest);
  }
  write_file(posix_io(), run + "/latest", "step-10\n");
  const auto record = read_run(posix_io(), run);
  const std::map<std::string, std::string> got(record.environment.begin(),
                                               record.environment.end());
  CHECK(got.at("newest checkpoint, step") == "10");
  CHECK(got.at("ranks") == "4");
  CHECK(got.at("threads of a rank") == "3");
  CHECK(got.at("hash of the config") ==
        read_manifest(posix_io(), run + "/checkpoints/step-5").config_hash);
  CHECK(got.at("hash of the config").size() == 32);
  const auto html = runs_to_html({record}, nullptr);
  CHECK(html.find("<td>dsmoe</td><td>1.2</td>") != std::string::npos);
  CHECK(html.find("<td>torch</td><td>&lt;3&gt;</td>") != std::string::npos);
}

TEST_CASE("runs_to_html: 5,000 logged steps of 12 layers of 32 experts stay under 2 MB",
          "[report]") {
  RunRecord run{.name = "long", .config = "", .steps = {}, .validations = {}, .events = {}};
  for (int64_t step = 1; step <= 5000; ++step) run.steps.push_back(step_line(step, 12, 32));
  const auto html = runs_to_html({run}, nullptr);
  CAPTURE(html.size());
  CHECK(html.size() < 2'000'000);
}

}  // namespace dsmoe
