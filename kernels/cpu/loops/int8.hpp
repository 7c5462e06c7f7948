// Loops of kernels/cpu/int8.cpp: products of rows and weights rounded to 8 bits. Products of integers add up
// exactly, in any order, so a result is the same bits at every level, and a row's does not depend on the rows
// beside it.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

constexpr int64_t kInt8Columns = 16;  // output channels of a block
constexpr int64_t kInt8Depth = 4;     // input channels that are multiplied at once

// A weight matrix W (N, K), channel n of the output scaled by itself: w = scale[n] * integer, |integer| <=
// 127. In blocks of 16 channels, and within a block four input channels of each at a time: (N/16, K/4, 16,
// 4), both rounded up, zeros where W has nothing.
struct Int8Weight {
  int64_t n, depth;      // N; K rounded up to a multiple of 4
  float* scales;         // (N) rounded up to a multiple of 16
  int32_t* corrections;  // like scales: -128 * the sum of the channel's integers
  int8_t* integers;
};

// Rows (M, K) as x = scale * integer, one scale a row: its largest magnitude becomes 127. At level v4 128 is
// added to each integer, which is then unsigned; the weight's corrections take it back.
struct Int8Rows {
  int64_t rows, depth;
  float* scales;     // (M)
  int8_t* integers;  // (M, depth): those of zeros beyond K
};

struct Int8Loops {
  void (*pack)(const float* w, int64_t k, int64_t stride, const Int8Weight& packed);
  void (*quantise_f32)(const float* x, int64_t k, int64_t stride, const Int8Rows& rows);
  void (*quantise_bf16)(const uint16_t* x, int64_t k, int64_t stride, const Int8Rows& rows);
  // y (M, N) = x W^T + bias; no bias: null.
  void (*multiply_f32)(const Int8Rows& x, const Int8Weight& w, const float* bias, float* y, int64_t stride);
  void (*multiply_bf16)(const Int8Rows& x, const Int8Weight& w, const float* bias, uint16_t* y,
                        int64_t stride);
};

TROUPE_DECLARE_LOOPS(Int8Loops, int8_loops)

}  // namespace troupe::kernels
