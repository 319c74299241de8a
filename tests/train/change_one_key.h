#pragma once

#include <string>
#include <vector>

#include "common/config_visitor.h"

namespace dsmoe {

/// Gives the n-th key another valid value, and remembers its name and rules.
class ChangeOneKey final : public ConfigVisitor {
 public:
  explicit ChangeOneKey(size_t target) : target_(target) {}
  void begin_section(const char* name, const char*) override { path_.emplace_back(name); }
  void end_section() override { path_.pop_back(); }
  void integer(const char* key, int64_t& value, int64_t min, int64_t max, FieldInfo info) override {
    if (selects(key, info)) value = value < max ? value + 1 : min;
  }
  void real(const char* key, double& value, double min, double max, FieldInfo info) override {
    if (selects(key, info)) value = value == max ? min : value + (max - value) / 1024;
  }
  void boolean(const char* key, bool& value, FieldInfo info) override {
    if (selects(key, info)) value = !value;
  }
  void text(const char* key, std::string& value, FieldInfo info) override {
    if (selects(key, info)) value += "_other";
  }
  void text_list(const char* key, std::vector<std::string>& value, FieldInfo info) override {
    if (selects(key, info)) value.emplace_back("other");
  }
  void number_list(const char* key,
                   std::vector<double>& value,
                   double min,
                   double,
                   FieldInfo info) override {
    if (selects(key, info)) value.push_back(min);
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>& choices,
              FieldInfo info) override {
    if (selects(key, info)) value = value == choices[0] ? choices[1] : choices[0];
  }

  std::string changed;  // the key; empty once there is no n-th one
  ResumeRule rule = ResumeRule::kFixed;
  InitRule init = InitRule::kCompared;

 private:
  bool selects(const char* key, const FieldInfo& info) {
    if (n_++ != target_) return false;
    for (const auto& part : path_) changed += part + ".";
    changed += key;
    rule = info.resume;
    init = info.init;
    return true;
  }
  size_t target_;
  size_t n_ = 0;
  std::vector<std::string> path_;
};

}  // namespace dsmoe
