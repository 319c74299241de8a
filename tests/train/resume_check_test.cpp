#include "train/resume_check.h"

#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"

namespace dsmoe {
namespace {

// Gives the n-th key another valid value, and remembers the rules of all keys.
class ChangeOne final : public ConfigVisitor {
 public:
  explicit ChangeOne(size_t target) : target_(target) {}
  void begin_section(const char* name, const char*) override { path_.emplace_back(name); }
  void end_section() override { path_.pop_back(); }
  void integer(const char* key, int64_t& value, int64_t min, int64_t max, FieldInfo info) override {
    if (meets(key, info)) value = value < max ? value + 1 : min;
  }
  void real(const char* key, double& value, double min, double max, FieldInfo info) override {
    if (meets(key, info)) value = value == max ? min : value + (max - value) / 1024;
  }
  void boolean(const char* key, bool& value, FieldInfo info) override {
    if (meets(key, info)) value = !value;
  }
  void text(const char* key, std::string& value, FieldInfo info) override {
    if (meets(key, info)) value += "_other";
  }
  void text_list(const char* key, std::vector<std::string>& value, FieldInfo info) override {
    if (meets(key, info)) value.emplace_back("other");
  }
  void number_list(const char* key,
                   std::vector<double>& value,
                   double min,
                   double,
                   FieldInfo info) override {
    if (meets(key, info)) value.push_back(min);
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>& choices,
              FieldInfo info) override {
    if (meets(key, info)) value = value == choices[0] ? choices[1] : choices[0];
  }

  std::string changed;  // the key; empty once there is no n-th one
  ResumeRule rule = ResumeRule::kFixed;

 private:
  bool meets(const char* key, const FieldInfo& info) {
    if (n_++ != target_) return false;
    for (const auto& part : path_) changed += part + ".";
    changed += key;
    rule = info.resume;
    return true;
  }
  size_t target_;
  size_t n_ = 0;
  std::vector<std::string> path_;
};

TEST_CASE("resume: each key of the schema, changed alone, is refused, applied or free as it says",
          "[train][resume]") {
  std::map<ResumeRule, int> n_keys;
  for (size_t n = 0;; ++n) {
    const RunConfig saved;
    RunConfig now;
    ChangeOne change(n);
    describe(change, now);
    if (change.changed.empty()) break;
    CAPTURE(change.changed);
    ++n_keys[change.rule];
    if (change.rule == ResumeRule::kFixed) {
      CHECK_THROWS_WITH(check_config_change(saved, now),
                        Catch::StartsWith(change.changed + ": expected "));
      continue;
    }
    const auto applied = check_config_change(saved, now);
    REQUIRE(applied.size() == (change.rule == ResumeRule::kApplied ? 1 : 0));
    if (!applied.empty()) {
      CHECK(applied[0].key == change.changed);
      CHECK(applied[0].old_value != applied[0].new_value);
    }
  }
  CHECK(n_keys[ResumeRule::kFixed] > 30);
  CHECK(n_keys[ResumeRule::kApplied] > 20);
  CHECK(n_keys[ResumeRule::kFree] > 10);
}

TEST_CASE("resume: an unchanged config changes nothing; two changes are both seen",
          "[train][resume]") {
  const RunConfig saved;
  RunConfig now;
  CHECK(check_config_change(saved, now).empty());
  now.train.optimizer.beta1 = 0.5;
  now.train.schedule.peak = 1.0;
  now.run_dir = "elsewhere";
  CHECK(check_config_change(saved, now).size() == 2);
}

TEST_CASE("resume: other tokens are refused, another version is not", "[train][resume]") {
  CheckpointManifest manifest;
  manifest.step = 7;
  manifest.dataset_hash = "aa";
  manifest.code_version = "1";
  manifest.torch_version = "2";
  CHECK_NOTHROW(check_origin(manifest, "aa", "1", "2"));
  CHECK_NOTHROW(check_origin(manifest, "aa", "1.1", "2.1"));
  CHECK_THROWS_WITH(check_origin(manifest, "bb", "1", "2"),
                    Catch::Contains("data.train") && Catch::Contains("step 7"));
}

}  // namespace
}  // namespace dsmoe
