// The rules of exact_sum.hpp, one element at a time: what the loops are tested against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/dropout.hpp"
#include "kernels/exact_sum.hpp"

namespace troupe::kernels::reference {

// log2 of the rounding step of a block, in units of the grid.
template <typename T>
int step_exponent(std::span<const T> block, int bits, int grid_exponent) {
  double max = 0;
  for (T value : block) max = std::max(max, std::abs(double(value)));
  int step = 0;
  while (max > std::ldexp(double((int64_t{1} << (bits - 1)) - 1), step + grid_exponent)) ++step;
  return step;
}

// The integers that a slot adds for one block that starts at `offset` of the flat space.
inline void fold_block(std::span<const float> block, int64_t offset, const FoldOptions& options,
                       std::span<int64_t> sum) {
  const int step = step_exponent(block, options.bits, kGridExponent);
  for (size_t i = 0; i < block.size(); ++i) {
    const double x = std::ldexp(double(block[i]), -kGridExponent - step);
    double mantissa = std::nearbyint(x);
    if (options.bits <= 8) {
      const uint32_t word = dropout_word(options.random_key, uint64_t(offset) + i);
      mantissa = std::floor(float(x) + (float(word >> 16) * 0x1p-16f + 0x1p-17f));
    }
    sum[i] += int64_t(mantissa) * (int64_t{1} << step);
  }
}

// The canonical rounding of one block's totals, to nearest. REQUIRES |total| < 2^53, so that doubles are
// exact.
inline int round_block(std::span<const int64_t> total, int bits, std::span<int32_t> mantissa) {
  const int shift = step_exponent(total, bits, 0);
  for (size_t i = 0; i < total.size(); ++i)
    mantissa[i] = int32_t(std::nearbyint(std::ldexp(double(total[i]), -shift)));
  return shift;
}

}  // namespace troupe::kernels::reference
