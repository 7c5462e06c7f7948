// Loops of kernels/cpu/rotary.cpp: one row of `heads` heads, each twice `half` elements. No fused
// multiply-add: the same bits at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct RotaryLoops {
  // Turns the pairs (i, i + half) of each head by the angles whose (half) cosines and sines these are, times
  // `sign`, which is 1 or -1.
  void (*rotate_f32)(float* row, int64_t heads, int64_t half, const float* cosines, const float* sines,
                     float sign);
  void (*rotate_bf16)(uint16_t* row, int64_t heads, int64_t half, const float* cosines, const float* sines,
                      float sign);
};

TROUPE_DECLARE_LOOPS(RotaryLoops, rotary_loops)

}  // namespace troupe::kernels
