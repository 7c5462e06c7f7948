// Loops of kernels/cpu/convert.cpp. bf16 is its bits; `count` elements, contiguous, unaligned.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct ConvertLoops {
  void (*to_bf16)(const float* from, uint16_t* to, int64_t count);  // nearest even
  void (*to_f32)(const uint16_t* from, float* to, int64_t count);
  void (*add)(const float* x, float* y, int64_t count);  // y += x
};

TROUPE_DECLARE_LOOPS(ConvertLoops, convert_loops)

}  // namespace troupe::kernels
