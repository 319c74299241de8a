#include "train/matrix_peak.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/cpu_features.h"
#include "common/io.h"
#include "common/machine.h"
#include "common/staged_output.h"
#include "train/flops.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxPeakBytes = 1 << 20;
constexpr double kQuietShare = 0.9;

nlohmann::json read_peaks(const std::string& path) {
  try {
    if (!std::filesystem::exists(path)) return nlohmann::json::object();
    auto json = nlohmann::json::parse(
        read_file(posix_io(), path, kMaxPeakBytes), nullptr, /*allow_exceptions=*/false);
    return json.is_object() ? json : nlohmann::json::object();
  } catch (const std::exception&) {
    return nlohmann::json::object();
  }
}

std::optional<double> peak_in(const nlohmann::json& peaks, const std::string& key) {
  const auto found = peaks.find(key);
  if (found == peaks.end() || !found->is_number()) return std::nullopt;
  const auto value = found->get<double>();
  return value > 0 ? std::optional(value) : std::nullopt;
}

}  // namespace

bool ProductTime::is_quiet() const {
  return cpu_seconds >= kQuietShare * static_cast<double>(threads) * wall_seconds;
}

MatrixPeak::MatrixPeak(std::string path, std::string key)
    : path_(std::move(path)), key_(std::move(key)), peak_(peak_in(read_peaks(path_), key_)) {}

void MatrixPeak::add(double flops_per_second) {
  if (flops_per_second <= peak_.value_or(0)) return;
  peak_ = flops_per_second;
  store();
}

std::optional<double> MatrixPeak::share_of(double flops_per_second) {
  if (!peak_) return std::nullopt;
  add(flops_per_second);
  return flops_per_second / *peak_;
}

// Another process may have stored a higher one.
void MatrixPeak::store() const {
  if (path_.empty()) return;
  try {
    auto peaks = read_peaks(path_);
    peaks[key_] = std::max(*peak_, peak_in(peaks, key_).value_or(0));
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path());
    replace_file(posix_io(), path_, peaks.dump(1) + "\n");
  } catch (const std::exception&) {
    // A cache: without it the peak holds for this process.
  }
}

std::string matrix_peak_key(at::ScalarType dtype, int64_t threads) {
  return fmt::format(
      "{}, {}, {}, {} threads", cpu_model(), name_of(cpu_isa()), c10::toString(dtype), threads);
}

std::string matrix_peak_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/dsmoe/matrix_peaks.json";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return "";
  return std::string(home) + "/.cache/dsmoe/matrix_peaks.json";
}

std::optional<double> measure_quiet_matrix_speed(at::ScalarType dtype, int64_t threads) {
  std::optional<double> best;
  measure_matrix_products(
      dtype, at::kCPU, [&](double flops, double wall_seconds, double cpu_seconds) {
        const ProductTime time{wall_seconds, cpu_seconds, threads};
        if (time.is_quiet()) best = std::max(best.value_or(0), flops / wall_seconds);
      });
  return best;
}

}  // namespace dsmoe
