// Columns of rows that lie apart, in registers. For sources compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

#if defined(__AVX512F__)
#define TROUPE_UNPACK(what) _mm512_unpack##what
#elif defined(__AVX2__)
#define TROUPE_UNPACK(what) _mm256_unpack##what
#endif

#if defined(__AVX2__)
// In each 128 bits, of the rows i to i + 3 (i is 0 or 4): column c becomes x[i + c].
TROUPE_INLINE void transpose_fours(NativeI* x) {
  NativeI y[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    y[i] = TROUPE_UNPACK(lo_epi32)(x[i], x[i + 1]);
    y[i + 1] = TROUPE_UNPACK(hi_epi32)(x[i], x[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    x[i] = TROUPE_UNPACK(lo_epi64)(y[i], y[i + 2]);
    x[i + 1] = TROUPE_UNPACK(hi_epi64)(y[i], y[i + 2]);
    x[i + 2] = TROUPE_UNPACK(lo_epi64)(y[i + 1], y[i + 3]);
    x[i + 3] = TROUPE_UNPACK(hi_epi64)(y[i + 1], y[i + 3]);
  }
}
#endif

#if defined(__AVX512F__)

// to[c], lane i = the 32-bit element c of row i; sixteen rows of eight such elements.
TROUPE_INLINE void transpose_columns(const void* const* rows, size_t offset, IVec* to) {
  __m512i x[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // row i beside row i + 8
    const auto* low = static_cast<const char*>(rows[i]) + offset;
    const auto* high = static_cast<const char*>(rows[i + 8]) + offset;
    x[i] =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low))),
                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)), 1);
  }
  transpose_fours(x);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  const __m512i second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    to[c].r[0] = (NativeU32)_mm512_permutex2var_epi64(x[c], first, x[c + 4]);
    to[c + 4].r[0] = (NativeU32)_mm512_permutex2var_epi64(x[c], second, x[c + 4]);
  }
}

#elif defined(__AVX2__)

TROUPE_INLINE void transpose_columns(const void* const* rows, size_t offset, IVec* to) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    __m256i x[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      x[i] = _mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(static_cast<const char*>(rows[8 * half + i]) + offset));
    transpose_fours(x);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      to[c].r[half] = (NativeU32)_mm256_permute2x128_si256(x[c], x[c + 4], 0x20);
      to[c + 4].r[half] = (NativeU32)_mm256_permute2x128_si256(x[c], x[c + 4], 0x31);
    }
  }
}

#endif

}  // namespace troupe::kernels::TROUPE_ISA
