// The plain form of attention.cpp, in double over contiguous host arrays. For tests, and to read.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/dropout.hpp"

namespace troupe::kernels::reference {

// softmax(q k^T / sqrt(D)) of query i in head h of sequence b, before dropout; zeros where it does not see.
inline std::vector<double> attention_weights(const AttentionShape& s, const float* q, const float* k,
                                             int64_t b, int64_t h, int64_t i) {
  const int64_t D = s.head_size, C = s.heads * D;
  std::vector<double> weights(size_t(s.keys), 0.0);
  int64_t seen = s.key_lengths != nullptr ? s.key_lengths[b] : s.keys;
  if (s.causal) seen = std::min(seen, std::max<int64_t>(0, i + s.keys - s.queries + 1));
  double largest = -HUGE_VAL, sum = 0;
  for (int64_t j = 0; j < seen; ++j) {
    double score = 0;
    for (int64_t d = 0; d < D; ++d)
      score += double(q[(b * s.queries + i) * C + h * D + d]) * double(k[(b * s.keys + j) * C + h * D + d]);
    weights[size_t(j)] = score / std::sqrt(double(D));
    largest = std::max(largest, weights[size_t(j)]);
  }
  for (int64_t j = 0; j < seen; ++j) sum += weights[size_t(j)] = std::exp(weights[size_t(j)] - largest);
  for (int64_t j = 0; j < seen; ++j) weights[size_t(j)] /= sum;
  return weights;
}

inline double attention_dropout(const AttentionShape& s, int64_t b, int64_t h, int64_t i, int64_t j) {
  return double(dropout_factor(s.dropout, uint64_t(((b * s.heads + h) * s.queries + i) * s.keys + j)));
}

// q (B*Tq, H*D), k and v (B*Tk, H*D), out (B*Tq, H*D).
inline void attention_forward(const AttentionShape& s, const float* q, const float* k, const float* v,
                              float* out) {
  const int64_t D = s.head_size, C = s.heads * D;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.queries; ++i) {
        const std::vector<double> weights = attention_weights(s, q, k, b, h, i);
        for (int64_t d = 0; d < D; ++d) {
          double sum = 0;
          for (int64_t j = 0; j < s.keys; ++j)
            sum += weights[size_t(j)] * attention_dropout(s, b, h, i, j) *
                   double(v[(b * s.keys + j) * C + h * D + d]);
          out[(b * s.queries + i) * C + h * D + d] = float(sum);
        }
      }
}

// Adds to dq, dk and dv, in double, shaped as q, k and v.
inline void attention_backward(const AttentionShape& s, const float* q, const float* k, const float* v,
                               const float* dout, double* dq, double* dk, double* dv) {
  const int64_t D = s.head_size, C = s.heads * D;
  const double scale = 1 / std::sqrt(double(D));
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.queries; ++i) {
        const std::vector<double> weights = attention_weights(s, q, k, b, h, i);
        const int64_t query = (b * s.queries + i) * C + h * D;
        std::vector<double> dweights(size_t(s.keys), 0.0);
        double delta = 0;
        for (int64_t j = 0; j < s.keys; ++j) {
          const int64_t key = (b * s.keys + j) * C + h * D;
          const double kept = attention_dropout(s, b, h, i, j);
          for (int64_t d = 0; d < D; ++d) {
            dweights[size_t(j)] += kept * double(dout[query + d]) * double(v[key + d]);
            dv[key + d] += kept * weights[size_t(j)] * double(dout[query + d]);
          }
          delta += dweights[size_t(j)] * weights[size_t(j)];
        }
        for (int64_t j = 0; j < s.keys; ++j) {
          const int64_t key = (b * s.keys + j) * C + h * D;
          const double dscore = weights[size_t(j)] * (dweights[size_t(j)] - delta) * scale;
          for (int64_t d = 0; d < D; ++d) {
            dq[query + d] += dscore * double(k[key + d]);
            dk[key + d] += dscore * double(q[query + d]);
          }
        }
      }
}

}  // namespace troupe::kernels::reference
