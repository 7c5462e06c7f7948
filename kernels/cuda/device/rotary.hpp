// The kernel of kernels/cuda/rotary.cpp: N pairs of one head a thread.
#pragma once

#include "kernels/cuda/device/elementwise.hpp"

namespace troupe::kernels::device {

template <typename T, int N>
struct Rotate : ElementTile<N> {
  Shape pairs;         // (rows, pairs of a row)
  int64_t half = 0;    // pairs of a head, a multiple of N
  int64_t length = 1;  // rows of `turns`
  float sign = 1;      // of the angles
  Rows<const float> turns;
  Rows<T> x;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    this->run(block, pairs, DropoutRule{}, [&](Place at, const uint32_t*) {
      const int64_t head = at.col / half, pair = at.col - head * half;
      const float* turn = turns.row(at.row % length) + pair;
      T* first = x.row(at.row) + 2 * half * head + pair;
      float a[N], b[N], cosine[N], sine[N], turned[N];
      load(first, a);
      load(first + half, b);
      load(turn, cosine);
      load(turn + half, sine);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) {
        sine[i] = sine[i] * sign;
        turned[i] = a[i] * cosine[i] - b[i] * sine[i];
      }
      store(first, turned);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) turned[i] = b[i] * cosine[i] + a[i] * sine[i];
      store(first + half, turned);
    });
  }
};

}  // namespace troupe::kernels::device
