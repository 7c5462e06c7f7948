// Kernels of kernels/cuda/convert.cpp.
#pragma once

#include "kernels/cuda/device/elementwise.hpp"

namespace troupe::kernels::device {

// to = from in another type.
template <typename From, typename To, int N>
struct Convert : ElementTile<N> {
  Shape shape;
  Rows<const From> from;
  Rows<To> to;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    this->run(block, shape, DropoutRule{}, [&](Place at, const uint32_t*) {
      float v[N];
      load(from.row(at.row) + at.col, v);
      store(to.row(at.row) + at.col, v);
    });
  }
};

// y += x.
template <int N>
struct Add : ElementTile<N> {
  Shape shape;
  Rows<const float> x;
  Rows<float> y;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    this->run(block, shape, DropoutRule{}, [&](Place at, const uint32_t*) {
      float v[N], sum[N];
      load(x.row(at.row) + at.col, v);
      load(y.row(at.row) + at.col, sum);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) sum[i] = sum[i] + v[i];
      store(y.row(at.row) + at.col, sum);
    });
  }
};

}  // namespace troupe::kernels::device
