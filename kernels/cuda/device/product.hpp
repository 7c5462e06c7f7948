// A matrix product without tensor cores, an element of the result a thread: for shapes that cuBLASLt has no
// algorithm for. Column-major, as kernels/cuda/runtime.hpp's Product. Sums in f32, in order.
#pragma once

#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

// op(factor) (rows, cols).
template <typename T>
struct ProductFactor {
  const T* data = nullptr;
  int64_t leading = 0;
  bool transposed = false;

  TROUPE_DEVICE float at(int64_t row, int64_t col) const {
    return widen(data[transposed ? col + row * leading : row + col * leading]);
  }
};

template <typename T, typename D>
struct PlainProduct {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  using Registers = NoRegisters;

  int64_t m = 0, n = 0, k = 0;
  ProductFactor<T> a, b;
  D* d = nullptr;
  int64_t leading = 0;
  const D* bias = nullptr;  // (m), or null
  bool accumulate = false;

  static int64_t blocks(int64_t rows, int64_t cols) { return ceil_div(rows * cols, kThreads); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int thread, NoRegisters&) {
      const int64_t index = block.index() * kThreads + thread;
      if (index >= m * n) return;
      const int64_t row = index % m, col = index / m;
      D& to = d[row + col * leading];
      float sum = bias != nullptr ? widen(bias[row]) : 0.0f;
      if (accumulate) sum += widen(to);
      for (int64_t i = 0; i < k; ++i) sum = fused(a.at(row, i), b.at(i, col), sum);
      to = narrow<D>(sum);
    });
  }
};

}  // namespace troupe::kernels::device
