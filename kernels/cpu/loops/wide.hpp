// Eight 64-bit integers (Wide), whatever the registers of the instruction-set level, beside the sixteen lanes
// of vec.hpp: a Vec or IVec widens into two of them. Arithmetic is unsigned, modulo 2^64. For sources
// compiled by troupe_isa_loops only; the same bits at every level.
#pragma once

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

constexpr int kWideLanes = 8;
typedef int64_t NativeS64 __attribute__((vector_size(sizeof(NativeF))));
typedef uint64_t NativeU64 __attribute__((vector_size(sizeof(NativeF))));
typedef double NativeD __attribute__((vector_size(sizeof(NativeF))));
constexpr int kWideNativeLanes = kWideLanes / kRegisters;
typedef int32_t NativeHalf __attribute__((vector_size(sizeof(NativeF) / 2)));

struct Wide {
  NativeU64 r[kRegisters];
};

TROUPE_BINARY(Wide, operator+, a.r[i] + b.r[i])
TROUPE_BINARY(Wide, operator-, a.r[i] - b.r[i])
TROUPE_BINARY(Wide, operator&, a.r[i] & b.r[i])
TROUPE_BINARY(Wide, operator|, a.r[i] | b.r[i])
TROUPE_BINARY(Wide, operator^, a.r[i] ^ b.r[i])

TROUPE_INLINE Wide shift_left(Wide a, int bits) {
  TROUPE_EACH a.r[i] = a.r[i] << uint64_t(bits);
  return a;
}
TROUPE_INLINE Wide shift_right(Wide a, int bits) {  // logical
  TROUPE_EACH a.r[i] = a.r[i] >> uint64_t(bits);
  return a;
}
// All ones in the lanes that are negative as signed integers.
TROUPE_INLINE Wide negative(Wide a) {
  TROUPE_EACH a.r[i] = (NativeU64)((NativeS64)a.r[i] < NativeS64{});
  return a;
}
TROUPE_BINARY(Wide, min_signed, (NativeU64)((NativeS64)a.r[i] < (NativeS64)b.r[i] ? a.r[i] : b.r[i]))
TROUPE_INLINE Wide broadcast_wide(uint64_t x) {
  Wide y;
  TROUPE_EACH y.r[i] = x + NativeU64{};
  return y;
}
TROUPE_INLINE Wide load_wide(const void* p) {  // unaligned
  Wide y;
  TROUPE_EACH __builtin_memcpy(&y.r[i], static_cast<const char*>(p) + i * int(sizeof(NativeF)),
                               sizeof(NativeF));
  return y;
}
TROUPE_INLINE void store_wide(void* p, Wide a) {
  TROUPE_EACH __builtin_memcpy(static_cast<char*>(p) + i * int(sizeof(NativeF)), &a.r[i], sizeof(NativeF));
}

TROUPE_INLINE uint64_t or_lanes(Wide a) {
  uint64_t lanes[kWideLanes], result = 0;
  store_wide(lanes, a);
  for (uint64_t lane : lanes) result |= lane;
  return result;
}
TROUPE_INLINE int64_t min_lane_signed(Wide a) {
  int64_t lanes[kWideLanes], result = INT64_MAX;
  store_wide(lanes, a);
  for (int64_t lane : lanes) result = lane < result ? lane : result;
  return result;
}

// Eight signed 32-bit integers in memory, unaligned. Storing keeps the low 32 bits of each lane.
TROUPE_INLINE Wide load_narrow(const int32_t* p) {
  Wide y;
  TROUPE_EACH {
    NativeHalf half;
    __builtin_memcpy(&half, p + i * kWideNativeLanes, sizeof half);
    y.r[i] = (NativeU64) __builtin_convertvector(half, NativeS64);
  }
  return y;
}
TROUPE_INLINE void store_narrow(int32_t* p, Wide a) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256 even = _mm256_shuffle_ps((__m256)a.r[0], (__m256)a.r[1], 0x88);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64((__m256i)even, 0xd8));
#else
  TROUPE_EACH {
    const NativeHalf half = __builtin_convertvector((NativeS64)a.r[i], NativeHalf);
    __builtin_memcpy(p + i * kWideNativeLanes, &half, sizeof half);
  }
#endif
}
// The same past the caches, to a multiple of 16 bytes: other threads see it after an sfence.
TROUPE_INLINE void stream_narrow(int32_t* p, Wide a) {
  alignas(64) int32_t lanes[kWideLanes];
  store_narrow(lanes, a);
  for (int half = 0; half < 2; ++half)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p) + half, reinterpret_cast<const __m128i*>(lanes)[half]);
}
TROUPE_INLINE void store_narrow(int32_t* p, Wide a, int64_t count) {  // the first lanes, at most eight
  if (count == kWideLanes) return store_narrow(p, a);
  int32_t lanes[kWideLanes];
  store_narrow(lanes, a);
  for (int64_t lane = 0; lane < count; ++lane) p[lane] = lanes[lane];
}

// Sixteen signed 32-bit integers: lanes 0..7 to `low`, 8..15 to `high`.
TROUPE_INLINE void widen(IVec a, Wide& low, Wide& high) {
#if defined(__AVX512F__)
  const __m512i x = (__m512i)a.r[0];
  low.r[0] = (NativeU64)_mm512_cvtepi32_epi64(_mm512_castsi512_si256(x));
  high.r[0] = (NativeU64)_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(x, 1));
#elif defined(__AVX2__)
  const __m256i x = (__m256i)a.r[0], y = (__m256i)a.r[1];
  low.r[0] = (NativeU64)_mm256_cvtepi32_epi64(_mm256_castsi256_si128(x));
  low.r[1] = (NativeU64)_mm256_cvtepi32_epi64(_mm256_extracti128_si256(x, 1));
  high.r[0] = (NativeU64)_mm256_cvtepi32_epi64(_mm256_castsi256_si128(y));
  high.r[1] = (NativeU64)_mm256_cvtepi32_epi64(_mm256_extracti128_si256(y, 1));
#else
  for (int i = 0; i < 2; ++i) {
    const __m128i x = (__m128i)a.r[i], y = (__m128i)a.r[2 + i];
    low.r[2 * i] = (NativeU64)_mm_cvtepi32_epi64(x);
    low.r[2 * i + 1] = (NativeU64)_mm_cvtepi32_epi64(_mm_srli_si128(x, 8));
    high.r[2 * i] = (NativeU64)_mm_cvtepi32_epi64(y);
    high.r[2 * i + 1] = (NativeU64)_mm_cvtepi32_epi64(_mm_srli_si128(y, 8));
  }
#endif
}

// To the nearest integer, ties to even (MXCSR's default). NaN, and what is not below 2^31, give some integer.
TROUPE_INLINE IVec nearest(Vec a) {
  IVec y;
#if defined(__AVX512F__)
  y.r[0] = (NativeU32)_mm512_cvtps_epi32(a.r[0]);
#elif defined(__AVX2__)
  TROUPE_EACH y.r[i] = (NativeU32)_mm256_cvtps_epi32(a.r[i]);
#else
  TROUPE_EACH y.r[i] = (NativeU32)_mm_cvtps_epi32(a.r[i]);
#endif
  return y;
}
TROUPE_INLINE Vec floor(Vec a) {
#if defined(__AVX512F__)
  a.r[0] = _mm512_roundscale_ps(a.r[0], 0x09);
#elif defined(__AVX2__)
  TROUPE_EACH a.r[i] = _mm256_floor_ps(a.r[i]);
#else
  TROUPE_EACH a.r[i] = _mm_floor_ps(a.r[i]);
#endif
  return a;
}

}  // namespace troupe::kernels::TROUPE_ISA
