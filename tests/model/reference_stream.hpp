// The operations of kernels/backend.hpp that a model needs, as plain loops in double over f32 views: what the
// fast backends are compared with, whole models at a time. f32 only, no dropout, one thread.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/backend.hpp"

namespace troupe::testing {

class ReferenceStream : public kernels::Stream {
 public:
  using View = kernels::View;
  using ConstView = kernels::ConstView;

  static float& at(View v, int64_t r, int64_t c) { return v.as<float>()[r * v.stride + c]; }
  static float at(ConstView v, int64_t r, int64_t c) { return v.as<float>()[r * v.stride + c]; }
  static float weight(const kernels::PackedWeight& w, int64_t n, int64_t k) {
    return static_cast<const float*>(w.data)[n * w.k + k];
  }

  kernels::Device device() const override { return {}; }
  void synchronize() override {}
  size_t packed_bytes(int64_t n, int64_t k, kernels::PackedType) const override {
    return (size_t(n * k) * 4 + 63) / 64 * 64;
  }
  kernels::PackedWeight pack(ConstView m, kernels::PackedType, void* to) override {
    std::memcpy(to, m.data, size_t(m.size()) * 4);
    return {to, m.rows, m.cols, kernels::DType::f32};
  }
  void linear_forward(ConstView x, kernels::PackedWeight w, ConstView bias, View y) override;
  void linear_backward_input(ConstView dy, kernels::PackedWeight w, View dx, bool accumulate) override;
  void linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) override;
  void attention_forward(const kernels::AttentionShape& s, ConstView q, ConstView k, ConstView v, View out,
                         View lse) override;
  void attention_backward(const kernels::AttentionShape& s, ConstView q, ConstView k, ConstView v,
                          ConstView out, ConstView lse, ConstView dout, View dq, View dk, View dv) override;
  void residual_norm_forward(const kernels::ResidualNorm& a) override;
  void residual_norm_backward(const kernels::ResidualNormGrad& a) override;
  void rotate(View x, ConstView turns, bool inverse) override;
  void activation_forward(kernels::Activation kind, ConstView x, kernels::Dropout, View y) override;
  void activation_backward(kernels::Activation kind, ConstView x, kernels::Dropout, ConstView dy,
                           View dx) override;
  void embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions, float scale,
                         kernels::Dropout, View out) override;
  void embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale, kernels::Dropout,
                          ConstView dout, kernels::GradientSink& sink, int64_t offset,
                          View dpositions) override;
  kernels::LossSums cross_entropy(const kernels::CrossEntropy& a) override;
  void block_square_sums(const kernels::BlockLayout& layout, const kernels::RoundedTotal& total,
                         int64_t begin, int64_t end, double* sums) override;
  void adamw(const kernels::AdamW& a, const kernels::BlockLayout& layout, const kernels::RoundedTotal& total,
             int64_t begin, int64_t end, float* weight, float* moment1, float* moment2) override;
  void log_softmax_topk(ConstView, int64_t, View, View) override {}
  void convert(ConstView from, View to) override {
    for (int64_t r = 0; r < to.rows; ++r)
      for (int64_t c = 0; c < to.cols; ++c) at(to, r, c) = at(from, r, c);
  }
  void add(ConstView x, View y) override {
    for (int64_t r = 0; r < y.rows; ++r)
      for (int64_t c = 0; c < y.cols; ++c) at(y, r, c) += at(x, r, c);
  }
  void fill_zero(View y) override {
    for (int64_t r = 0; r < y.rows; ++r)
      for (int64_t c = 0; c < y.cols; ++c) at(y, r, c) = 0;
  }

 private:
  // Softmax weights of query i of head h in row b, into `weights` (Tk); false: it sees no key.
  static bool softmax(const kernels::AttentionShape& s, ConstView q, ConstView k, int64_t b, int64_t h,
                      int64_t i, std::vector<double>& weights, double& lse);
};

}  // namespace troupe::testing
