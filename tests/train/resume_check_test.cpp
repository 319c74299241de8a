#include "train/resume_check.h"

#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"
#include "train/change_one_key.h"

namespace dsmoe {
namespace {

TEST_CASE("resume: each single changed key is refused, applied or free by its rule",
          "[train][resume]") {
  std::map<ResumeRule, int> n_keys;
  for (size_t n = 0;; ++n) {
    const RunConfig saved;
    RunConfig now;
    ChangeOneKey change(n);
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

TEST_CASE("resume: an unchanged config reports nothing; two changes are both reported",
          "[train][resume]") {
  const RunConfig saved;
  RunConfig now;
  CHECK(check_config_change(saved, now).empty());
  now.train.optimizer.beta1 = 0.5;
  now.train.schedule.peak = 1.0;
  now.run_dir = "elsewhere";
  CHECK(check_config_change(saved, now).size() == 2);
}

TEST_CASE("resume: other tokens or another tokenizer are refused, another version is not",
          "[train][resume]") {
  CheckpointManifest manifest;
  manifest.step = 7;
  manifest.dataset_hash = "aa";
  manifest.tokenizer_fingerprint = "t";
  manifest.code_version = "1";
  manifest.torch_version = "2";
  CHECK_NOTHROW(check_origin(manifest, {"aa", "t", "1", "2"}));
  CHECK_NOTHROW(check_origin(manifest, {"aa", "t", "1.1", "2.1"}));
  CHECK_THROWS_WITH(check_origin(manifest, {"bb", "t", "1", "2"}),
                    Catch::Contains("data.train") && Catch::Contains("step 7"));
  CHECK_THROWS_WITH(check_origin(manifest, {"aa", "u", "1", "2"}),
                    Catch::Contains("data.tokenizer") && Catch::Contains("step 7"));
}

}  // namespace
}  // namespace dsmoe
