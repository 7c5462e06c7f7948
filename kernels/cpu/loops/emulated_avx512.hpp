// What the loops of level v4 use of AVX-512, in plain C++: with TROUPE_EMULATE_AVX512 they are compiled for
// level v3 behind this header, so that their code can be tested on a processor that lacks the instructions.
// Slow. The functions are named as the intrinsics are, and do what Intel's manual says where the caller's
// MXCSR takes denormal numbers for zero.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1
#define __AVX512BF16__ 1
#define __AVX512VNNI__ 1

namespace troupe::emulated {

typedef float F32x16 __attribute__((vector_size(64)));
typedef int32_t I32x16 __attribute__((vector_size(64)));
typedef uint32_t U32x16 __attribute__((vector_size(64)));
typedef int64_t I64x8 __attribute__((vector_size(64)));
typedef uint64_t U64x8 __attribute__((vector_size(64)));
typedef uint8_t U8x64 __attribute__((vector_size(64)));
typedef int8_t I8x64 __attribute__((vector_size(64)));
typedef uint16_t U16x32 __attribute__((vector_size(64)));
typedef uint16_t U16x16 __attribute__((vector_size(32)));
typedef int32_t I32x8 __attribute__((vector_size(32)));

#define TROUPE_EMULATED static inline __attribute__((always_inline))

template <typename To, typename From>
TROUPE_EMULATED To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
// Each lane of `To` from what `lane` makes of its index.
template <typename To, typename Lane>
TROUPE_EMULATED To each(Lane lane) {
  To to{};
  for (int i = 0; i < int(sizeof to / sizeof to[0]); ++i) to[i] = lane(i);
  return to;
}
template <typename Vector>
TROUPE_EMULATED Vector choose(unsigned mask, Vector yes, Vector no) {
  return each<Vector>([&](int i) { return mask >> i & 1 ? yes[i] : no[i]; });
}
TROUPE_EMULATED float widened(uint16_t bits) {
  return as<float>(uint32_t(bits) << 16);
}

// --- memory: lanes whose bit is set, others zero ---

template <typename Lanes, typename Vector>
TROUPE_EMULATED Vector load_masked(unsigned mask, const void* p) {
  auto lane = Lanes{}[0];
  return as<Vector>(each<Lanes>([&](int i) {
    if (mask >> i & 1)
      __builtin_memcpy(&lane, static_cast<const char*>(p) + i * int(sizeof lane), sizeof lane);
    else
      lane = 0;
    return lane;
  }));
}
template <typename Lanes, typename Vector>
TROUPE_EMULATED void store_masked(void* p, unsigned mask, Vector a) {
  const auto lanes = as<Lanes>(a);
  for (int i = 0; i < int(sizeof lanes / sizeof lanes[0]); ++i) {
    const auto lane = lanes[i];
    if (mask >> i & 1) __builtin_memcpy(static_cast<char*>(p) + i * int(sizeof lane), &lane, sizeof lane);
  }
}

// --- floats ---

TROUPE_EMULATED __m512 max_ps(__m512 a, __m512 b) {
  return each<__m512>([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}
TROUPE_EMULATED __m512 min_ps(__m512 a, __m512 b) {
  return each<__m512>([&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
}
TROUPE_EMULATED __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return each<__m512>([&](int i) { return __builtin_fmaf(a[i], b[i], c[i]); });
}
TROUPE_EMULATED __m512 sqrt_ps(__m512 a) {
  return each<__m512>([&](int i) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(a[i]))); });
}
template <int kHow>
TROUPE_EMULATED __m512 roundscale_ps(__m512 a) {
  static_assert(kHow == 0x09, "down, without exceptions");
  return each<__m512>([&](int i) { return _mm_cvtss_f32(_mm_floor_ps(_mm_set_ss(a[i]))); });
}
TROUPE_EMULATED __m512i cvtps_epi32(__m512 a) {
  return as<__m512i>(each<I32x16>([&](int i) { return _mm_cvtss_si32(_mm_set_ss(a[i])); }));
}
TROUPE_EMULATED __m512 movehdup_ps(__m512 a) {
  return each<__m512>([&](int i) { return a[i | 1]; });
}
TROUPE_EMULATED __m512 moveldup_ps(__m512 a) {
  return each<__m512>([&](int i) { return a[i & ~1]; });
}
TROUPE_EMULATED __m512 mask_movehdup_ps(__m512 other, __mmask16 mask, __m512 a) {
  return as<__m512>(choose(mask, as<U32x16>(movehdup_ps(a)), as<U32x16>(other)));
}
TROUPE_EMULATED __m512 mask_moveldup_ps(__m512 other, __mmask16 mask, __m512 a) {
  return as<__m512>(choose(mask, as<U32x16>(moveldup_ps(a)), as<U32x16>(other)));
}
// --- bf16 ---

// The nearest, ties to even; denormal numbers are zero, NaN stays one.
TROUPE_EMULATED __m256i cvtneps_pbh(__m512 a) {
  const auto bits = as<U32x16>(a);
  return as<__m256i>(each<U16x16>([&](int i) {
    const uint32_t x = bits[i];
    if ((x & 0x7f800000) == 0) return uint16_t(x >> 16 & 0x8000);
    if ((x & 0x7fffffff) > 0x7f800000) return uint16_t(x >> 16 | 0x40);
    return uint16_t((x + 0x7fff + (x >> 16 & 1)) >> 16);
  }));
}
TROUPE_EMULATED __m512 dpbf16_ps(__m512 sum, __m512i x, __m512i w) {
  const auto a = as<U16x32>(x), b = as<U16x32>(w);
  return each<__m512>([&](int i) {
    const float odd = __builtin_fmaf(widened(a[2 * i + 1]), widened(b[2 * i + 1]), sum[i]);
    return __builtin_fmaf(widened(a[2 * i]), widened(b[2 * i]), odd);
  });
}
TROUPE_EMULATED __m512i cvtepu16_epi32(__m256i a) {
  const auto halves = as<U16x16>(a);
  return as<__m512i>(each<U32x16>([&](int i) { return uint32_t(halves[i]); }));
}
// --- integers ---

TROUPE_EMULATED __m512i mul_epu32(__m512i a, __m512i b) {
  const auto x = as<U32x16>(a), y = as<U32x16>(b);
  return as<__m512i>(each<U64x8>([&](int i) { return uint64_t(x[2 * i]) * y[2 * i]; }));
}
template <int kWhich>
TROUPE_EMULATED __m512i ternarylogic_epi32(__m512i a, __m512i b, __m512i c) {
  static_assert(kWhich == 0x96, "exclusive or of three");
  return a ^ b ^ c;
}
TROUPE_EMULATED __mmask16 test_epi32_mask(__m512i a, __m512i b) {
  const auto both = as<U32x16>(a & b);
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= unsigned(both[i] != 0) << i;
  return __mmask16(mask);
}
TROUPE_EMULATED __m512i slli_epi32(__m512i a, int bits) {
  return as<__m512i>(as<U32x16>(a) << uint32_t(bits));
}
TROUPE_EMULATED __m512i cvtepi32_epi64(__m256i a) {
  const auto x = as<I32x8>(a);
  return as<__m512i>(each<I64x8>([&](int i) { return int64_t(x[i]); }));
}
TROUPE_EMULATED __m512i permutex2var_epi64(__m512i a, __m512i which, __m512i b) {
  return each<__m512i>([&](int i) { return which[i] & 8 ? b[which[i] & 7] : a[which[i] & 7]; });
}
// Of each 128 bits, the lower or upper half of both, by turns.
template <typename Lanes, bool kUpper>
TROUPE_EMULATED __m512i unpacked(__m512i a, __m512i b) {
  constexpr int kGroup = int(16 / sizeof(Lanes{}[0]));
  const auto x = as<Lanes>(a), y = as<Lanes>(b);
  return as<__m512i>(each<Lanes>([&](int i) {
    const int from = i / kGroup * kGroup + (kUpper ? kGroup / 2 : 0) + i % kGroup / 2;
    return i % 2 == 0 ? x[from] : y[from];
  }));
}
// Unsigned bytes by signed ones, four to a sum.
TROUPE_EMULATED __m512i dpbusd_epi32(__m512i sum, __m512i x, __m512i w) {
  const auto a = as<U8x64>(x);
  const auto b = as<I8x64>(w);
  const auto before = as<U32x16>(sum);
  return as<__m512i>(each<U32x16>([&](int i) {
    int32_t dot = 0;
    for (int j = 0; j < 4; ++j) dot += int32_t(a[4 * i + j]) * int32_t(b[4 * i + j]);
    return before[i] + uint32_t(dot);
  }));
}
TROUPE_EMULATED void mask_cvtepi32_storeu_epi8(void* p, __mmask16 mask, __m512i a) {
  const auto x = as<U32x16>(a);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) static_cast<uint8_t*>(p)[i] = uint8_t(x[i]);
}

// --- halves ---

template <int kHalf, typename Half, typename Whole>
TROUPE_EMULATED Half half_of(Whole whole) {
  Half halves[2];
  __builtin_memcpy(halves, &whole, sizeof whole);
  return halves[kHalf];
}
template <int kHalf>
TROUPE_EMULATED __m512i with_half(__m512i whole, __m256i half) {
  __m256i halves[2];
  __builtin_memcpy(halves, &whole, sizeof whole);
  halves[kHalf] = half;
  __builtin_memcpy(&whole, halves, sizeof whole);
  return whole;
}

}  // namespace troupe::emulated

#define _mm512_max_ps ::troupe::emulated::max_ps
#define _mm512_min_ps ::troupe::emulated::min_ps
#define _mm512_fmadd_ps ::troupe::emulated::fmadd_ps
#define _mm512_sqrt_ps ::troupe::emulated::sqrt_ps
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, how) ::troupe::emulated::roundscale_ps<how>(a)
#define _mm512_cvtps_epi32 ::troupe::emulated::cvtps_epi32
#define _mm512_movehdup_ps ::troupe::emulated::movehdup_ps
#define _mm512_mask_movehdup_ps ::troupe::emulated::mask_movehdup_ps
#define _mm512_mask_moveldup_ps ::troupe::emulated::mask_moveldup_ps
#define _mm512_maskz_loadu_ps ::troupe::emulated::load_masked<::troupe::emulated::U32x16, __m512>
#define _mm512_mask_storeu_ps ::troupe::emulated::store_masked<::troupe::emulated::U32x16, __m512>
#define _mm512_cvtneps_pbh(a) ((__m256bh)::troupe::emulated::cvtneps_pbh(a))
#define _mm512_dpbf16_ps(sum, x, w) ::troupe::emulated::dpbf16_ps(sum, (__m512i)(x), (__m512i)(w))
#define _mm512_cvtepu16_epi32 ::troupe::emulated::cvtepu16_epi32
#define _mm256_maskz_loadu_epi16 ::troupe::emulated::load_masked<::troupe::emulated::U16x16, __m256i>
#define _mm256_mask_storeu_epi16 ::troupe::emulated::store_masked<::troupe::emulated::U16x16, __m256i>
#define _mm512_mul_epu32 ::troupe::emulated::mul_epu32
#undef _mm512_ternarylogic_epi32
#define _mm512_ternarylogic_epi32(a, b, c, which) ::troupe::emulated::ternarylogic_epi32<which>(a, b, c)
#define _mm512_test_epi32_mask ::troupe::emulated::test_epi32_mask
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 ::troupe::emulated::slli_epi32
#define _mm512_cvtepi32_epi64 ::troupe::emulated::cvtepi32_epi64
#define _mm512_permutex2var_epi64 ::troupe::emulated::permutex2var_epi64
#define _mm512_unpacklo_epi32 ::troupe::emulated::unpacked<::troupe::emulated::U32x16, false>
#define _mm512_unpackhi_epi32 ::troupe::emulated::unpacked<::troupe::emulated::U32x16, true>
#define _mm512_unpacklo_epi64 ::troupe::emulated::unpacked<::troupe::emulated::U64x8, false>
#define _mm512_unpackhi_epi64 ::troupe::emulated::unpacked<::troupe::emulated::U64x8, true>
#define _mm512_dpbusd_epi32 ::troupe::emulated::dpbusd_epi32
#define _mm512_mask_cvtepi32_storeu_epi8 ::troupe::emulated::mask_cvtepi32_storeu_epi8
#undef _mm512_setr_epi64
#define _mm512_setr_epi64(...) (__m512i{__VA_ARGS__})
#define _mm512_castps512_ps256(a) ::troupe::emulated::half_of<0, __m256>(a)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(a, which) ::troupe::emulated::half_of<which, __m256>(a)
#define _mm512_castsi512_si256(a) ::troupe::emulated::half_of<0, __m256i>(a)
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64(a, which) ::troupe::emulated::half_of<which, __m256i>(a)
#define _mm512_castsi256_si512(a) ::troupe::emulated::with_half<0>(__m512i{}, a)
#undef _mm512_inserti64x4
#define _mm512_inserti64x4(whole, half, which) ::troupe::emulated::with_half<which>(whole, half)
