#include "eval/time_model.h"

#include <c10/util/Exception.h>

#include <array>
#include <cmath>
#include <cstddef>

namespace dsmoe {
namespace {

constexpr size_t kTerms = 3;
using Row = std::array<double, kTerms>;

}  // namespace

double TimeModel::ms(const ExpertCounts& experts) const {
  return fixed_ms + ms_per_moe_expert * experts.moe + ms_per_moa_expert * experts.moa;
}

TimeModel fit_time_model(const std::vector<TimedExperts>& points) {
  TORCH_CHECK(!points.empty(), "fit_time_model: expected at least one measured plan, got none");
  // Columns made orthogonal one after another (modified Gram-Schmidt), each point weighted by the
  // inverse of its time: what is left of a column says whether it varies by itself.
  std::array<std::vector<double>, kTerms> columns;
  std::vector<double> rest(points.size(), 1.0);  // ms / ms
  for (const auto& point : points) {
    const Row row = {1.0, point.experts.moe, point.experts.moa};
    for (size_t i = 0; i < kTerms; ++i) columns[i].push_back(row[i] / point.ms);
  }
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  std::array<Row, kTerms> upper{};  // upper triangular, of ones on the diagonal
  Row along{};                      // of the times, along each orthogonal column
  for (size_t i = 0; i < kTerms; ++i) {
    const double before = dot(columns[i], columns[i]);
    for (size_t j = 0; j < i; ++j) {
      const double norm = dot(columns[j], columns[j]);
      upper[j][i] = norm > 0 ? dot(columns[j], columns[i]) / norm : 0.0;
      for (size_t p = 0; p < points.size(); ++p) columns[i][p] -= upper[j][i] * columns[j][p];
    }
    const double left = dot(columns[i], columns[i]);
    if (left <= 1e-9 * before) {
      columns[i].assign(points.size(), 0.0);
      continue;
    }
    along[i] = dot(columns[i], rest) / left;
    for (size_t p = 0; p < points.size(); ++p) rest[p] -= along[i] * columns[i][p];
  }
  Row terms{};
  for (size_t i = kTerms; i-- > 0;) {
    terms[i] = along[i];
    for (size_t j = i + 1; j < kTerms; ++j) terms[i] -= upper[i][j] * terms[j];
  }
  return {.fixed_ms = terms[0], .ms_per_moe_expert = terms[1], .ms_per_moa_expert = terms[2]};
}

}  // namespace dsmoe
