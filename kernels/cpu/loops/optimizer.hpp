// Loops of kernels/cpu/optimizer.cpp: one block of at most 256 elements. The same bits at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct AdamWRule {
  float gradient_factor;  // gradient = mantissa * gradient_factor
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float step;                      // learning rate / bias correction 1
  float inverse_root_correction2;  // 1 / sqrt(bias correction 2)
  float epsilon;
  float decay;  // 1 - learning rate * weight decay
};

struct OptimizerLoops {
  double (*square_sum)(const int32_t* mantissa, int64_t count);  // in sixteen f64 lanes, then a fixed tree
  void (*adamw)(const AdamWRule* rule, const int32_t* mantissa, int64_t count, float* weight, float* moment1,
                float* moment2);
};

TROUPE_DECLARE_LOOPS(OptimizerLoops, optimizer_loops)

}  // namespace troupe::kernels
