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

// exp(logit - shift[row]) of a block in the compute type, with the row's largest logit so far as shift.
struct KeptExponentials {
  void* values;  // (rows, cols), or null: nothing is kept
  float* shift;  // (rows)
};

struct SmoothedTarget {
  float on;   // 1 - smoothing, taken from the target's gradient
  float off;  // smoothing / V, taken from every entry's
};

// Each for a compute type of f32 and of bf16. The gradients are softmax - smoothed target, or 0 in rows that
// are not counted.
struct CrossEntropyLoops {
  void (*accumulate_f32)(const LogitBlock& block, const SoftmaxRows& state, const KeptExponentials& kept);
  void (*accumulate_bf16)(const LogitBlock& block, const SoftmaxRows& state, const KeptExponentials& kept);
  // log_sum[r] = max[r] + log(sum[r]); NaN when the row had a NaN or infinity.
  void (*log_sums)(const SoftmaxRows& state, int64_t rows, float* log_sum);
  // From the logits, made again. `dlogits` (rows, cols) is of the compute type.
  void (*gradient_f32)(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed, void* dlogits);
  void (*gradient_bf16)(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed,
                        void* dlogits);
  // In place from the exponentials that were kept; block.logits is not read, `target` is that of SoftmaxRows.
  void (*kept_gradient_f32)(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed,
                            const float* target, const KeptExponentials& kept);
  void (*kept_gradient_bf16)(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed,
                             const float* target, const KeptExponentials& kept);
};

TROUPE_DECLARE_LOOPS(CrossEntropyLoops, cross_entropy_loops)

}  // namespace troupe::kernels
