#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/mutual_information/kernels.h"

/// mutual_information on a GPU: a lane per row. For the sums, shared memory holds the rows of a
/// block, so that a lane per expert adds them.
namespace dsmoe::device {

constexpr int kRouterLanes = 128;
constexpr int64_t kRouterSharedBytes = 48 << 10;

/// Lanes of a block of the sums: as many rows as fit into shared memory beside the totals; 0 if
/// there are too many experts.
template <typename W>
DSMOE_HD int router_sum_lanes(int64_t n_experts) {
  const int64_t row_bytes = (n_experts + 1) * static_cast<int64_t>(sizeof(W));
  const int64_t total_bytes = (n_experts + 1) * static_cast<int64_t>(sizeof(double));
  for (int lanes = kRouterLanes; lanes >= kWarpLanes; lanes /= 2) {
    if (total_bytes + lanes * row_bytes <= kRouterSharedBytes) return lanes;
  }
  return 0;
}

template <typename W>
LaunchShape mutual_information_sums_shape(const RouterRows<W>& rows) {
  const int lanes = router_sum_lanes<W>(rows.n_experts);
  return {.n_blocks = mutual_information_device_chunks(rows.n_rows),
          .n_lanes = lanes,
          .shared_bytes =
              (rows.n_experts + 1) * static_cast<int64_t>(sizeof(double) + lanes * sizeof(W))};
}

template <typename W>
LaunchShape mutual_information_backward_shape(const RouterRows<W>& rows) {
  return {.n_blocks = blocks_for(rows.n_rows, kRouterLanes), .n_lanes = kRouterLanes};
}

// log sum exp of a row.
template <typename W>
DSMOE_HD W log_sum_exp(const W* logits, int64_t n) {
  W greatest = logits[0];
  DSMOE_KEEP_LOOP
  for (int64_t j = 1; j < n; ++j) greatest = greatest < logits[j] ? logits[j] : greatest;
  W sum = 0;
  DSMOE_KEEP_LOOP
  for (int64_t j = 0; j < n; ++j) sum += std::exp(logits[j] - greatest);
  return greatest + std::log(sum);
}

template <typename W>
DSMOE_HD bool row_counts(const RouterRows<W>& rows, int64_t row) {
  return row < rows.n_rows && (rows.counted == nullptr || rows.counted[row]);
}

/// sums [n_blocks, E + 1], a row per block.
template <typename Context, typename W>
DSMOE_HD void mutual_information_sums_body(Context& ctx, const RouterRows<W>& rows, double* sums) {
  const int64_t n = rows.n_experts;
  double* totals = ctx.template shared<double>();  // [E + 1]
  W* tile = reinterpret_cast<W*>(totals + n + 1);  // [n_lanes, E + 1]
  ctx.lanes([&](int lane) {
    for (int64_t j = lane; j <= n; j += ctx.n_lanes()) totals[j] = 0;
  });
  for (int64_t first = ctx.block() * ctx.n_lanes(); first < rows.n_rows;
       first += ctx.n_blocks() * ctx.n_lanes()) {
    ctx.lanes([&](int lane) {
      const int64_t row = first + lane;
      W* own = tile + lane * (n + 1);
      const bool counts = row_counts(rows, row);
      const W* logits = rows.logits + row * n;
      const W shift = counts ? log_sum_exp(logits, n) : W(0);
      W plogp = 0;
      DSMOE_KEEP_LOOP
      for (int64_t j = 0; j < n; ++j) {
        const W log_p = counts ? logits[j] - shift : W(0);
        own[j] = counts ? std::exp(log_p) : W(0);
        if (counts) plogp += own[j] * log_p;
      }
      own[n] = plogp;
    });
    ctx.sync();
    ctx.lanes([&](int lane) {
      for (int64_t j = lane; j <= n; j += ctx.n_lanes()) {
        for (int r = 0; r < ctx.n_lanes(); ++r) {
          totals[j] += static_cast<double>(tile[r * (n + 1) + j]);
        }
      }
    });
    ctx.sync();
  }
  ctx.lanes([&](int lane) {
    for (int64_t j = lane; j <= n; j += ctx.n_lanes()) sums[ctx.block() * (n + 1) + j] = totals[j];
  });
}

template <typename Context, typename W>
DSMOE_HD void mutual_information_backward_body(Context& ctx,
                                               const RouterRows<W>& rows,
                                               const W* log_mean,
                                               const W* factor,
                                               W* grad_logits) {
  const int64_t n = rows.n_experts;
  ctx.lanes([&](int lane) {
    const int64_t row = ctx.block() * ctx.n_lanes() + lane;
    if (row >= rows.n_rows) return;
    const W weight = row_counts(rows, row) ? *factor : W(0);
    const W* logits = rows.logits + row * n;
    W* grad = grad_logits + row * n;
    const W shift = log_sum_exp(logits, n);
    W divergence = 0;  // KL(p || mean)
    DSMOE_KEEP_LOOP
    for (int64_t j = 0; j < n; ++j) {
      const W log_p = logits[j] - shift;
      divergence += std::exp(log_p) * (log_p - log_mean[j]);
    }
    DSMOE_KEEP_LOOP
    for (int64_t j = 0; j < n; ++j) {
      const W log_p = logits[j] - shift;
      grad[j] = weight * std::exp(log_p) * (log_mean[j] - log_p + divergence);
    }
  });
}

}  // namespace dsmoe::device
