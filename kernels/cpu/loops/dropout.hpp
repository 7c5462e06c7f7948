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
    const __m512i even = _mm512_mul_epu32((NativeI)a.r[i], (NativeI)m.r[i]);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((NativeI)a.r[i], 32), (NativeI)m.r[i]);
    high.r[i] = (NativeU32)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    low.r[i] = (NativeU32)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
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

// Philox4x32-10 at the sixteen counters from `counter` (a multiple of 16) on; words[w] holds word w of each.
TROUPE_INLINE void philox(uint64_t key, uint64_t counter, IVec words[4]) {
  const uint32_t lane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  IVec c0 = load(static_cast<const uint32_t*>(lane)) + broadcast(uint32_t(counter));
  IVec c1 = broadcast(uint32_t(counter >> 32)), c2 = broadcast(uint32_t{0}), c3 = c2;
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    IVec high0, low0, high1, low1;
    multiply_wide(c0, 0xD2511F53u, high0, low0);
    multiply_wide(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ broadcast(k0);
    c1 = low1;
    c2 = high0 ^ c3 ^ broadcast(k1);
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// Room that `words` of random_words needs for `count` elements from any index on.
constexpr int64_t random_words_room(int64_t count) {
  return count + 128;
}

// Fills `words` with the words of elements [first, first + count) and returns where element `first` lies in
// it.
TROUPE_INLINE const uint32_t* random_words(uint64_t key, uint64_t first, int64_t count, uint32_t* words) {
  const uint64_t begin = first & ~uint64_t{63};
  for (uint64_t at = begin; at < first + uint64_t(count); at += 64) {
    IVec four[4];
    philox(key, at / 4, four);
    for (int w = 0; w < 4; ++w) store(words + (at - begin) + w * kLanes, four[w]);
  }
  return words + (first - begin);
}

// The factors of sixteen elements, from their words: 0 or mask.scale.
TROUPE_INLINE Vec dropout_factors(const DropoutMask& mask, const uint32_t* words) {
  const IVec dropped = less(load(words), broadcast(mask.threshold));
  return select(dropped, zero(), broadcast(mask.scale));
}

}  // namespace troupe::kernels::TROUPE_ISA
