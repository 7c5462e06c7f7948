// The plain form of linear.cpp: triple loops in double over contiguous host arrays. For tests, and to read.
#pragma once

#include <cstdint>

namespace troupe::kernels::reference {

// y (M, N) = x (M, K) w^T (N, K) + bias (N), or no bias when null.
inline void linear_forward(const float* x, const float* w, const float* bias, int64_t M, int64_t N, int64_t K,
                           float* y) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t n = 0; n < N; ++n) {
      double sum = bias != nullptr ? double(bias[n]) : 0.0;
      for (int64_t k = 0; k < K; ++k) sum += double(x[m * K + k]) * double(w[n * K + k]);
      y[m * N + n] = float(sum);
    }
}

// dx (M, K) = dy (M, N) w (N, K).
inline void linear_backward_input(const float* dy, const float* w, int64_t M, int64_t N, int64_t K,
                                  float* dx) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t k = 0; k < K; ++k) {
      double sum = 0;
      for (int64_t n = 0; n < N; ++n) sum += double(dy[m * N + n]) * double(w[n * K + k]);
      dx[m * K + k] = float(sum);
    }
}

// dw (N, K) = dy^T (N, M) x (M, K); dbias (N) = column sums of dy.
inline void linear_backward_weight(const float* dy, const float* x, int64_t M, int64_t N, int64_t K,
                                   float* dw, float* dbias) {
  for (int64_t n = 0; n < N; ++n) {
    double column = 0;
    for (int64_t m = 0; m < M; ++m) column += double(dy[m * N + n]);
    dbias[n] = float(column);
    for (int64_t k = 0; k < K; ++k) {
      double sum = 0;
      for (int64_t m = 0; m < M; ++m) sum += double(dy[m * N + n]) * double(x[m * K + k]);
      dw[n * K + k] = float(sum);
    }
  }
}

}  // namespace troupe::kernels::reference
