// Loops of the exact sums, a block of at most 256 elements at a time; exact_sum.hpp says what they compute.
// The same bits at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct FoldRule {
  int bits;      // 2..24
  float limit;   // a larger magnitude raises kSumOverflow
  uint64_t key;  // of the stochastic rounding; used when bits <= 8
};

struct RoundRule {
  int bits;      // 2..32
  uint64_t key;  // used when bits <= 8
};

// What packing a block's mantissas needs to know: the bitwise or of them, and of them with negative ones
// complemented.
struct RoundedBlock {
  uint64_t any, magnitude;
  int shift;
};

struct ExactSumLoops {
  // Adds the rounded block to sum[0..count). Returns SumFlags; when there are any, sum is untouched. `offset`
  // is the block's first element in the flat space: the counter of its random words.
  uint32_t (*fold)(const float* gradient, int64_t count, uint64_t offset, const FoldRule* rule, int64_t* sum);
  // sum += gradient. Returns SumFlags.
  uint32_t (*fold_float)(const float* gradient, int64_t count, float* sum);
  // Rounds an integer total. REQUIRES |total| < 2^62; beyond it results are some, within the bounds of
  // memory.
  RoundedBlock (*round)(const int64_t* total, int64_t count, uint64_t offset, const RoundRule* rule,
                        int32_t* mantissa);
};

TROUPE_DECLARE_LOOPS(ExactSumLoops, exact_sum_loops)

}  // namespace troupe::kernels
