#include "report/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>

#include "common/error.h"
#include "formats/checkpoint_manifest.h"
#include "report/page_data.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

double rounded(double value) { return std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr); }

nlohmann::json step_line(int64_t step, size_t n_layers, size_t n_experts) {
  const std::vector<std::vector<double>> load(n_layers, std::vector<double>(n_experts, 0.25));
  return {{"step", step},
          {"tokens", step * 100},
          {"loss", 5.0 / static_cast<double>(step + 1)},
          {"lm_loss", 5.0 / static_cast<double>(step + 1)},
          {"moe_mi", -0.5},
          {"loss_weights", {{"lm_loss", 1.0}, {"moe_mi", 0.25}}},
          {"loss_bounds", {{"moe_mi", -2.0}}},
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

// The JSON that the page's script reads.
nlohmann::json data_of(const std::string& html) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = html.find(open) + open.size();
  return nlohmann::json::parse(html.substr(begin, html.find("</script>", begin) - begin));
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
  CHECK(count_of(html, "<script") == 2);
  CHECK(html.find("expert 1 &lt;dead&gt;") != std::string::npos);
  CHECK(html.find("run_dir: a &amp; b") != std::string::npos);
  CHECK(html.find("1.6487") != std::string::npos);  // perplexity of 0.5 nats
  CHECK(count_of(html, "<div") == count_of(html, "</div>"));

  const auto data = data_of(html);
  REQUIRE(data["runs"].size() == 2);
  const auto& run = data["runs"][0];
  CHECK(run["name"] == "first");
  CHECK(run["x"]["step"] == nlohmann::json({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  CHECK(run["x"]["tokens"][9] == 1000);
  CHECK(run["x"]["seconds"][9] == 1.0);  // 1,000 tokens at 1,000 a second
  CHECK(run["series"]["learning_rate"][0] == 1e-3);
  CHECK(run["series"]["memory_gib"][0] == rounded(1.0 / 1024));
  CHECK(run["terms"]["moe_mi"][0] == -0.125);  // times its weight
  CHECK(run["shares"]["moe_mi"][0] == 0.25);   // of its bound
  CHECK(run["active"][0]["name"] == "FFN experts");
  CHECK(run["active"][0]["y"] == nlohmann::json({2.5, 3.5}));
  REQUIRE(run["loads"].size() == 2);
  CHECK(run["loads"][1]["title"] == "Load of FFN experts, layer 1");
  CHECK(run["loads"][0]["rows"][3][0] == 0.25);
  CHECK(data["curve"]["x"] == nlohmann::json({50}));
  CHECK(data["curve"]["labels"] == nlohmann::json({"top_k=2"}));
}

TEST_CASE("runs_to_html: a name in the data cannot end its script", "[report]") {
  const TemporaryDirectory directory;
  write_run(directory.file("run"), 2, 1, 2);
  auto run = read_run(posix_io(), directory.file("run"));
  run.name = "</script><script>alert(1)";
  const auto html = runs_to_html({run}, nullptr);
  CHECK(count_of(html, "<script") == 2);
  CHECK(data_of(html)["runs"][0]["name"] == run.name);
}

TEST_CASE("page_data: places between logged steps are interpolated, times are the lines' own",
          "[report]") {
  RunRecord run{.name = "run", .config = "", .steps = {}, .validations = {}, .events = {}};
  for (const int64_t step : {10, 20}) {
    auto line = step_line(step, 1, 2);
    line["seconds"] = step * 3;
    run.steps.push_back(line);
  }
  run.validations.push_back({{"step", 15}, {"validation_loss", 0.5}, {"seconds", 70}});
  const auto data = page_data({run}, nullptr);
  const auto& validation = data["runs"][0]["validation"];
  CHECK(validation["x"]["step"] == nlohmann::json({15}));
  CHECK(validation["x"]["tokens"] == nlohmann::json({1500}));
  CHECK(validation["x"]["seconds"] == nlohmann::json({45}));
  CHECK(wall_seconds(run) == 70);
}

TEST_CASE("page_data: every policy of a validation has its curve, bits per byte and share",
          "[report]") {
  RunRecord run{
      .name = "run", .config = "", .steps = {step_line(10, 1, 2)}, .validations = {}, .events = {}};
  for (const int64_t step : {5, 10}) {
    const double loss = 3.0 - 0.1 * static_cast<double>(step);
    run.validations.push_back(
        {{"step", step},
         {"validation_loss", loss},
         {"policies",
          {{{"policy", "all"}, {"loss", loss}, {"bits_per_byte", 2.5}, {"active_share", 1.0}},
           {{"policy", "top_k=1"},
            {"loss", loss + 0.5},
            {"bits_per_byte", 3.5},
            {"active_parameters", 1234567},
            {"active_share", 0.25},
            {"experts", {{"moa", {{{"active", 1.5}}}}}}}}}});
  }
  const auto data = page_data({run}, nullptr);
  const auto& policies = data["runs"][0]["validation"]["policies"];
  REQUIRE(policies.size() == 2);
  CHECK(policies[1]["policy"] == "top_k=1");
  CHECK(policies[1]["loss"] == nlohmann::json({3.0, 2.5}));
  CHECK(policies[1]["bits"] == nlohmann::json({3.5, 3.5}));
  CHECK(policies[1]["share"] == 25);
  CHECK(data["runs"][0]["active"][0]["name"] == "attention experts, top_k=1");
  const auto html = runs_to_html({run}, nullptr);
  CHECK(html.find("<td>1,234,567</td><td>25.0 %</td>") != std::string::npos);
  CHECK(html.find("<td>+64.87 %</td>") != std::string::npos);  // e^0.5 - 1
}

TEST_CASE("page_data: of many lines those with the extremes are drawn", "[report]") {
  RunRecord run{.name = "run", .config = "", .steps = {}, .validations = {}, .events = {}};
  for (int64_t step = 1; step <= 5000; ++step) run.steps.push_back(step_line(step, 1, 2));
  run.steps[3210]["gradient_norm"] = 77.0;
  run.steps[1234]["lm_loss"] = 99.0;
  const auto drawn = page_data({run}, nullptr)["runs"][0];
  CHECK(drawn["x"]["step"].size() <= 801);
  CHECK(drawn["x"]["step"].back() == 5000);
  const auto has = [&](const char* key, double value) {
    const auto& list = drawn["series"][key];
    return std::find(list.begin(), list.end(), nlohmann::json(value)) != list.end();
  };
  CHECK(has("gradient_norm", 77.0));
  CHECK(has("lm_loss", 99.0));
}

TEST_CASE("config_differences: names the keys that differ, with every run's value", "[report]") {
  const auto run_with = [](const std::string& config) {
    return RunRecord{.name = "", .config = config, .steps = {}, .validations = {}, .events = {}};
  };
  const auto differences = config_differences(
      {run_with("run_dir: a\nseed: 1\nmodel:\n  d_model: 8\n  kinds: [1, 2]\n"),
       run_with("run_dir: b\nseed: 1\nmodel:\n  d_model: 9\n  kinds: [1, 2]\n  more: x\n")});
  REQUIRE(differences.size() == 2);
  CHECK(differences[0].first == "model.d_model");
  CHECK(differences[0].second == std::vector<std::string>{"8", "9"});
  CHECK(differences[1].first == "model.more");
  CHECK(differences[1].second == std::vector<std::string>{"", "x"});
}

TEST_CASE("runs_to_html: parameters, machine and wall time are those of run.json and the lines",
          "[report]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("run");
  write_run(path, 2, 1, 2);
  write_file(posix_io(),
             path + "/run.json",
             R"({"parameters_total": 2345678, "parameters_non_embedding": 1751744, "ranks": 2,
                 "threads": 3, "dtype": "bfloat16", "machine": "A <CPU>"})");
  const auto html = runs_to_html({read_run(posix_io(), path)}, nullptr);
  CHECK(html.find("<td>2,345,678</td><td>1,751,744</td>") != std::string::npos);
  CHECK(html.find("<td>A &lt;CPU&gt;, 2 x 3 threads, bfloat16</td>") != std::string::npos);
  CHECK(html.find("<td>200</td><td>0 s</td>") != std::string::npos);
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
