#pragma once

#include <ATen/core/ScalarType.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>

namespace dsmoe {

/// Time of one matrix product.
struct ProductTime {
  double wall_seconds = 0;
  double cpu_seconds = 0;  ///< of all threads of the process
  int64_t threads = 1;
  /// The process had its threads' processors for itself.
  bool is_quiet() const;
};

/// The fastest matrix products that this machine has shown for one dtype and number of threads:
/// the denominator of MFU. A file keeps it over processes, so that load at one start does not lower
/// it. A file that cannot be read or written counts as absent.
class MatrixPeak {
 public:
  /// path  JSON file, one entry per key; empty: not kept
  /// key   of the machine, see matrix_peak_key
  MatrixPeak(std::string path, std::string key);

  /// FLOP/s of one process; none: never measured on a quiet machine.
  std::optional<double> flops_per_second() const { return peak_; }

  /// Takes a measured speed; only a higher one counts.
  void add(double flops_per_second);

  /// Share of the peak that a speed reaches, at most 1: a higher speed becomes the peak. None
  /// without a peak.
  std::optional<double> share_of(double flops_per_second);

 private:
  void store() const;

  std::string path_;
  std::string key_;
  std::optional<double> peak_;
};

/// Returns CPU model, instruction set, threads and dtype as one text.
std::string matrix_peak_key(at::ScalarType dtype, int64_t threads);

/// Returns `$XDG_CACHE_HOME/dsmoe/matrix_peaks.json`, else that in `~/.cache`; empty without a
/// home.
std::string matrix_peak_path();

/// Matrix speed of the CPU, operations per second: the best of some square products of 1024 during
/// a tenth of a second that had the machine for themselves. None: no product had.
std::optional<double> measure_quiet_matrix_speed(at::ScalarType dtype, int64_t threads);

}  // namespace dsmoe
