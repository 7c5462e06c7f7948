// Loops of kernels/cpu/cross_entropy.cpp over a block of logits (rows, cols) f32, contiguous, whose first
// column is vocabulary entry `first`.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

// Running values of each row over the blocks seen so far (Milakov & Gimelshein 2018, "Online normalizer
// calculation for softmax"). Start: max = -infinity, the others 0.
struct SoftmaxRows {
  float* max;     // largest logit
  float* sum;     // of exp(logit - max)
  float* total;   // of the logits
  float* target;  // logit of the row's target
};

struct LogitBlock {
  const float* logits;
  int64_t rows, cols;
  int64_t first;
  const int32_t* targets;  // (rows); negative: the row is not counted
};

struct SmoothedTarget {
  float on;   // 1 - smoothing, taken from the target's gradient
  float off;  // smoothing / V, taken from every entry's
};

struct CrossEntropyLoops {
  void (*accumulate)(const LogitBlock& block, const SoftmaxRows& state);
  // log_sum[r] = max[r] + log(sum[r]); NaN when the row had a NaN or infinity.
  void (*log_sums)(const SoftmaxRows& state, int64_t rows, float* log_sum);
  // dlogits = softmax - smoothed target, or 0 in rows that are not counted.
  void (*gradient_f32)(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed,
                       float* dlogits);
  void (*gradient_bf16)(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed,
                        uint16_t* dlogits);
};

TROUPE_DECLARE_LOOPS(CrossEntropyLoops, cross_entropy_loops)

}  // namespace troupe::kernels
