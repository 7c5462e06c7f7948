// The words of kernels/dropout.hpp for a run of elements, sixty-four at a time. For sources compiled by
// troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/loops.hpp"
#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

TROUPE_INLINE void multiply_wide(IVec a, uint32_t factor, IVec& high, IVec& low) {
  const IVec m = broadcast(factor);
  TROUPE_EACH {
#if defined(__AVX512F__)
    const __m512 shifted = _mm512_movehdup_ps((NativeF)a.r[i]);  // odd lanes into even ones
    const __m512 even = (__m512)_mm512_mul_epu32((NativeI)a.r[i], (NativeI)m.r[i]);
    const __m512 odd = (__m512)_mm512_mul_epu32((__m512i)shifted, (NativeI)m.r[i]);
    high.r[i] = (NativeU32)_mm512_mask_movehdup_ps(odd, 0x5555, even);
    low.r[i] = (NativeU32)_mm512_mask_moveldup_ps(even, 0xaaaa, odd);
#elif defined(__AVX2__)
    const __m256i even = _mm256_mul_epu32((NativeI)a.r[i], (NativeI)m.r[i]);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((NativeI)a.r[i], 32), (NativeI)m.r[i]);
    high.r[i] = (NativeU32)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    low.r[i] = (NativeU32)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    const __m128i even = _mm_mul_epu32((NativeI)a.r[i], (NativeI)m.r[i]);
    const __m128i odd = _mm_mul_epu32(_mm_srli_epi64((NativeI)a.r[i], 32), (NativeI)m.r[i]);
    high.r[i] = (NativeU32)_mm_blend_epi16(_mm_srli_epi64(even, 32), odd, 0xcc);
    low.r[i] = (NativeU32)_mm_blend_epi16(even, _mm_slli_epi64(odd, 32), 0xcc);
#endif
  }
}

TROUPE_INLINE IVec xor3(IVec a, IVec b, IVec c) {
#if defined(__AVX512F__)
  a.r[0] = (NativeU32)_mm512_ternarylogic_epi32((NativeI)a.r[0], (NativeI)b.r[0], (NativeI)c.r[0], 0x96);
  return a;
#else
  return a ^ b ^ c;
#endif
}

// Philox4x32-10 at the Runs * 16 counters from `counter` (a multiple of 16) on; words[run][w] holds word w of
// sixteen. A round is a chain of slow operations: two runs at once hide half of it.
template <int Runs>
TROUPE_INLINE void philox(uint64_t key, uint64_t counter, IVec words[Runs][4]) {
  const uint32_t lane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int run = 0; run < Runs; ++run) {
    const uint64_t first = counter + uint64_t(run * kLanes);
    words[run][0] = load(static_cast<const uint32_t*>(lane)) + broadcast(uint32_t(first));
    words[run][1] = broadcast(uint32_t(first >> 32));
    words[run][2] = words[run][3] = broadcast(uint32_t{0});
  }
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
    for (int run = 0; run < Runs; ++run) {
      IVec* c = words[run];
      IVec high0, low0, high1, low1;
      multiply_wide(c[0], 0xD2511F53u, high0, low0);
      multiply_wide(c[2], 0xCD9E8D57u, high1, low1);
      c[0] = xor3(high1, c[1], broadcast(k0));
      c[2] = xor3(high0, c[3], broadcast(k1));
      c[1] = low1;
      c[3] = low0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Room that `words` of random_words needs for `count` elements from any index on.
constexpr int64_t random_words_room(int64_t count) {
  return count + 128;
}

// Fills `words` with the words of elements [first, first + count) and returns where element `first` lies in
// it.
static __attribute__((noinline)) const uint32_t* random_words(uint64_t key, uint64_t first, int64_t count, uint32_t* words) {
  const uint64_t begin = first & ~uint64_t{63}, end = first + uint64_t(count);
  uint64_t at = begin;
  for (; at + 64 < end; at += 128) {
    IVec eight[2][4];
    philox<2>(key, at / 4, eight);
    for (int w = 0; w < 8; ++w) store(words + (at - begin) + w * kLanes, eight[w / 4][w % 4]);
  }
  if (at < end) {
    IVec four[1][4];
    philox<1>(key, at / 4, four);
    for (int w = 0; w < 4; ++w) store(words + (at - begin) + w * kLanes, four[0][w]);
  }
  return words + (first - begin);
}

// The factors of sixteen elements, from their words: 0 or mask.scale.
TROUPE_INLINE Vec dropout_factors(const DropoutMask& mask, const uint32_t* words) {
  const IVec dropped = less(load(words), broadcast(mask.threshold));
  return select(dropped, zero(), broadcast(mask.scale));
}

}  // namespace troupe::kernels::TROUPE_ISA
