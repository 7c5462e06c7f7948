// FusedAttention as loops of the host, in double: what the emulated device has in the place of cuDNN.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/device/math.hpp"
#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

// One head of one sequence.
class PlainHead {
 public:
  PlainHead(const FusedAttention& attention, int64_t sequence, int64_t head)
      : a_(attention), b_(sequence), h_(head), scale_(1 / std::sqrt(double(attention.head_size))) {}

  void forward() const {
    for (int64_t i = 0; i < a_.queries; ++i) {
      std::vector<double> weights(size_t(visible(i)));
      double greatest = -INFINITY, sum = 0;
      for (int64_t j = 0; j < visible(i); ++j)
        greatest = std::max(greatest, weights[size_t(j)] = score(i, j));
      for (double& weight : weights) sum += weight = std::exp(weight - greatest);
      for (int64_t d = 0; d < a_.head_size; ++d) {
        double value = 0;
        for (int64_t j = 0; j < visible(i); ++j) value += weights[size_t(j)] * at(a_.v, a_.keys, j, d);
        put(a_.out, a_.queries, i, d, value / sum);
      }
      a_.lse[row(i)] = float(greatest + std::log(sum));
    }
  }

  void backward() const {
    const auto size = size_t(a_.head_size);
    std::vector<double> dk(size_t(a_.keys) * size), dv(dk);
    for (int64_t i = 0; i < a_.queries; ++i) {
      std::vector<double> dq(size);
      const double delta = dot(a_.dout, a_.queries, i, a_.out, a_.queries, i);
      for (int64_t j = 0; j < visible(i); ++j) {
        const double weight = std::exp(score(i, j) - double(a_.lse[row(i)]));
        const double dscore = weight * (dot(a_.dout, a_.queries, i, a_.v, a_.keys, j) - delta) * scale_;
        for (size_t d = 0; d < size; ++d) {
          const size_t key = size_t(j) * size + d;
          dv[key] += weight * at(a_.dout, a_.queries, i, int64_t(d));
          dk[key] += dscore * at(a_.q, a_.queries, i, int64_t(d));
          dq[d] += dscore * at(a_.k, a_.keys, j, int64_t(d));
        }
      }
      for (size_t d = 0; d < size; ++d) put(a_.dq, a_.queries, i, int64_t(d), dq[d]);
    }
    for (int64_t j = 0; j < a_.keys; ++j)
      for (size_t d = 0; d < size; ++d) {
        put(a_.dk, a_.keys, j, int64_t(d), dk[size_t(j) * size + d]);
        put(a_.dv, a_.keys, j, int64_t(d), dv[size_t(j) * size + d]);
      }
  }

 private:
  using Rows = FusedAttention::Rows;

  int64_t visible(int64_t i) const { return a_.causal ? std::min(i + 1, a_.keys) : a_.keys; }
  int64_t row(int64_t i) const { return (b_ * a_.heads + h_) * a_.queries + i; }
  uint16_t* place(const Rows& rows, int64_t count, int64_t i, int64_t d) const {
    return static_cast<uint16_t*>(rows.data) + (b_ * count + i) * rows.stride + h_ * a_.head_size + d;
  }
  double at(const Rows& rows, int64_t count, int64_t i, int64_t d) const {
    return double(device::widen(*place(rows, count, i, d)));
  }
  void put(const Rows& rows, int64_t count, int64_t i, int64_t d, double value) const {
    *place(rows, count, i, d) = device::narrow<uint16_t>(float(value));
  }
  double dot(const Rows& x, int64_t x_count, int64_t i, const Rows& y, int64_t y_count, int64_t j) const {
    double sum = 0;
    for (int64_t d = 0; d < a_.head_size; ++d) sum += at(x, x_count, i, d) * at(y, y_count, j, d);
    return sum;
  }
  double score(int64_t i, int64_t j) const { return scale_ * dot(a_.q, a_.queries, i, a_.k, a_.keys, j); }

  const FusedAttention& a_;
  int64_t b_, h_;
  double scale_;
};

inline void emulate(const FusedAttention& attention) {
  for (int64_t b = 0; b < attention.batch; ++b)
    for (int64_t h = 0; h < attention.heads; ++h) {
      const PlainHead head(attention, b, h);
      if (attention.is_gradient)
        head.backward();
      else
        head.forward();
    }
}

}  // namespace troupe::kernels
