// The plain form of cross_entropy.cpp, in double over contiguous host arrays. For tests, and to read.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"

namespace troupe::kernels::reference {

// x (M, C), w (V, C), targets (M); dx (M, C) and dw (V, C) are overwritten.
inline LossSums cross_entropy(const float* x, const float* w, const int32_t* targets, double smoothing,
                              int64_t M, int64_t V, int64_t C, float* dx, float* dw) {
  LossSums sums;
  std::vector<double> dw_sum(size_t(V * C)), z(size_t(V), 0.0), dx_row(size_t(C), 0.0);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t c = 0; c < C; ++c) dx[m * C + c] = 0;
    if (targets[m] < 0) continue;
    double largest = -HUGE_VAL, exponentials = 0, total = 0;
    for (int64_t v = 0; v < V; ++v) {
      z[size_t(v)] = 0;
      for (int64_t c = 0; c < C; ++c) z[size_t(v)] += double(x[m * C + c]) * double(w[v * C + c]);
      largest = std::max(largest, z[size_t(v)]);
      total += z[size_t(v)];
    }
    for (int64_t v = 0; v < V; ++v) exponentials += std::exp(z[size_t(v)] - largest);
    const double log_sum = largest + std::log(exponentials), target = z[size_t(targets[m])];
    sums.nll += log_sum - target;
    sums.loss += (1 - smoothing) * (log_sum - target) + smoothing * (log_sum - total / double(V));
    sums.tokens += 1;
    sums.correct += target >= largest ? 1 : 0;
    dx_row.assign(size_t(C), 0.0);
    for (int64_t v = 0; v < V; ++v) {
      const double wanted = (v == targets[m] ? 1 - smoothing : 0) + smoothing / double(V);
      const double dz = std::exp(z[size_t(v)] - log_sum) - wanted;
      for (int64_t c = 0; c < C; ++c) {
        dx_row[size_t(c)] += dz * double(w[v * C + c]);
        dw_sum[size_t(v * C + c)] += dz * double(x[m * C + c]);
      }
    }
    for (int64_t c = 0; c < C; ++c) dx[m * C + c] = float(dx_row[size_t(c)]);
  }
  for (size_t i = 0; i < dw_sum.size(); ++i) dw[i] = float(dw_sum[i]);
  return sums;
}

}  // namespace troupe::kernels::reference
