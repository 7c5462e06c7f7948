// Loops of kernels/cpu/linear.cpp.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct LinearLoops {
  // sums[c] = sum over rows of x[row * stride + c], in f32, rows in order.
  void (*column_sums_f32)(const float* x, int64_t rows, int64_t cols, int64_t stride, float* sums);
  void (*column_sums_bf16)(const uint16_t* x, int64_t rows, int64_t cols, int64_t stride, float* sums);
};

TROUPE_DECLARE_LOOPS(LinearLoops, linear_loops)

}  // namespace troupe::kernels
