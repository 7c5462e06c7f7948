// Rows of bf16 for products of pairs of them: each factor is multiplied as it is and the sums are f32, in
// order, two products at a time. Rows that are not there, and columns from D on, are zero. For sources
// compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/attention_parts.hpp"
#include "kernels/cpu/loops/transpose.hpp"

namespace troupe::kernels::TROUPE_ISA {

#if !defined(__AVX512BF16__)
constexpr bool kMultipliesPairs = false;
#else
constexpr bool kMultipliesPairs = true;

TROUPE_INLINE int64_t pairs_of(int64_t n) {
  return (n + 1) / 2;
}

TROUPE_INLINE const uint32_t* as_pairs(const uint16_t* rows) {
  return reinterpret_cast<const uint32_t*>(rows);
}

// to (Tp, Dp) = the keys (or values) of a head as they are.
TROUPE_INLINE void copy_keys(const AttentionHead& head, HeadRows from, uint16_t* to) {
  const int64_t padded = round_up(head.size);
  read_rows<uint16_t>(from, 0, head.keys, head.size, 1.0f, to);
  clear(to + head.keys * padded, (round_up(head.keys) - head.keys) * padded);
}

// Rows 2 i and 2 i + 1 of `from` side by side in row i of `to`, column by column, the even one in the low
// half.
static void pair_rows(const uint16_t* from, int64_t rows, int64_t stride, uint32_t* to, int64_t cols) {
  for (int64_t r = 0; r < rows; r += 2) {
    const uint16_t* x = from + r * stride;
    uint32_t* y = to + r / 2 * stride;
    for (int64_t c = 0; c < cols; c += kLanes) {
      const IVec low = shift_right(bits_of(load(x + c)), 16);
      store(y + c, r + 1 < rows ? low | bits_of(load(x + stride + c)) : low);
    }
  }
}

// to (Dp / 2, Tp): pairs of channels of the rows (Tp, Dp), row by row.
static void pair_channels(const uint16_t* from, int64_t rows, int64_t padded, uint32_t* to) {
  for (int64_t row = 0; row < rows; row += kLanes) {
    const void* sixteen[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) sixteen[i] = from + (row + i) * padded;
    for (int64_t pair = 0; pair < padded / 2; pair += 8) {
      IVec columns[8];
      transpose_columns(sixteen, size_t(pair) * sizeof *to, columns);
      for (int64_t c = 0; c < 8; ++c) store(to + (pair + c) * rows + row, columns[c]);
    }
  }
}

#endif

}  // namespace troupe::kernels::TROUPE_ISA
