// Sixteen floats (Vec) and sixteen 32-bit integers (IVec), whatever the registers of the instruction-set
// level: 4, 2 or 1 of them. For sources compiled by troupe_isa_loops only; everything lives in the level's
// namespace. All but fmadd give the same bits at every level, sums over lanes included (a fixed tree); exp,
// log and tanh are in vec_math.hpp. MXCSR is as CpuStream sets it: nearest even, denormals are zero.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define TROUPE_INLINE static inline __attribute__((always_inline))

namespace troupe::kernels::TROUPE_ISA {

constexpr int kLanes = 16;

#if defined(__AVX512F__)
constexpr int kRegisters = 1;
using NativeF = __m512;
using NativeI = __m512i;
#elif defined(__AVX2__)
constexpr int kRegisters = 2;
using NativeF = __m256;
using NativeI = __m256i;
#else
constexpr int kRegisters = 4;
using NativeF = __m128;
using NativeI = __m128i;
#endif
constexpr int kNativeLanes = kLanes / kRegisters;
typedef int32_t NativeS32 __attribute__((vector_size(sizeof(NativeF))));
typedef uint32_t NativeU32 __attribute__((vector_size(sizeof(NativeF))));

struct Vec {
  NativeF r[kRegisters];
};
struct IVec {  // unsigned arithmetic; comparisons are named
  NativeU32 r[kRegisters];
};

#define TROUPE_EACH _Pragma("GCC unroll 4") for (int i = 0; i < kRegisters; ++i)
#define TROUPE_BINARY(type, name, expression) \
  TROUPE_INLINE type name(type a, type b) {   \
    type y;                                   \
    TROUPE_EACH y.r[i] = expression;          \
    return y;                                 \
  }
TROUPE_BINARY(Vec, operator+, a.r[i] + b.r[i])
TROUPE_BINARY(Vec, operator-, a.r[i] - b.r[i])
TROUPE_BINARY(Vec, operator*, a.r[i] * b.r[i])
TROUPE_BINARY(Vec, operator/, a.r[i] / b.r[i])
TROUPE_BINARY(IVec, operator+, a.r[i] + b.r[i])
TROUPE_BINARY(IVec, operator-, a.r[i] - b.r[i])
TROUPE_BINARY(IVec, operator&, a.r[i] & b.r[i])
TROUPE_BINARY(IVec, operator|, a.r[i] | b.r[i])
TROUPE_BINARY(IVec, operator^, a.r[i] ^ b.r[i])
#if defined(__AVX512F__)
TROUPE_BINARY(Vec, max_native, _mm512_max_ps(a.r[i], b.r[i]))
TROUPE_BINARY(Vec, min_native, _mm512_min_ps(a.r[i], b.r[i]))
#elif defined(__AVX2__)
TROUPE_BINARY(Vec, max_native, _mm256_max_ps(a.r[i], b.r[i]))
TROUPE_BINARY(Vec, min_native, _mm256_min_ps(a.r[i], b.r[i]))
#else
TROUPE_BINARY(Vec, max_native, _mm_max_ps(a.r[i], b.r[i]))
TROUPE_BINARY(Vec, min_native, _mm_min_ps(a.r[i], b.r[i]))
#endif
// When either is NaN the result is `b`: max(bound, x) keeps a NaN of x.
TROUPE_INLINE Vec max(Vec a, Vec b) {
  return max_native(a, b);
}
TROUPE_INLINE Vec min(Vec a, Vec b) {
  return min_native(a, b);
}

TROUPE_INLINE IVec shift_left(IVec a, int bits) {
  IVec y;
  TROUPE_EACH y.r[i] = a.r[i] << uint32_t(bits);
  return y;
}
TROUPE_INLINE IVec shift_right(IVec a, int bits) {  // logical
  IVec y;
  TROUPE_EACH y.r[i] = a.r[i] >> uint32_t(bits);
  return y;
}
TROUPE_INLINE Vec broadcast(float x) {
  Vec y;
  TROUPE_EACH y.r[i] = x - NativeF{};
  return y;
}
TROUPE_INLINE IVec broadcast(uint32_t x) {
  IVec y;
  TROUPE_EACH y.r[i] = x + NativeU32{};
  return y;
}
TROUPE_INLINE Vec zero() {
  Vec y;
  TROUPE_EACH y.r[i] = NativeF{};
  return y;
}
TROUPE_INLINE IVec bits_of(Vec a) {
  IVec y;
  TROUPE_EACH y.r[i] = (NativeU32)a.r[i];
  return y;
}
TROUPE_INLINE Vec float_of_bits(IVec a) {
  Vec y;
  TROUPE_EACH y.r[i] = (NativeF)a.r[i];
  return y;
}
TROUPE_INLINE Vec to_float(IVec a) {  // of signed integers
  Vec y;
  TROUPE_EACH y.r[i] = __builtin_convertvector((NativeS32)a.r[i], NativeF);
  return y;
}
// All ones in the lanes where the comparison holds.
TROUPE_INLINE IVec less(Vec a, Vec b) {
  IVec y;
  TROUPE_EACH y.r[i] = (NativeU32)(a.r[i] < b.r[i]);
  return y;
}
TROUPE_INLINE IVec less(IVec a, IVec b) {  // unsigned
  IVec y;
  TROUPE_EACH y.r[i] = (NativeU32)(a.r[i] < b.r[i]);
  return y;
}
TROUPE_INLINE Vec select(IVec mask, Vec yes, Vec no) {
  return float_of_bits((mask & bits_of(yes)) | (bits_of(no) - (mask & bits_of(no))));
}
TROUPE_INLINE Vec keep_where(IVec mask, Vec a) {
  return float_of_bits(mask & bits_of(a));
}
TROUPE_INLINE Vec abs(Vec a) {
  return float_of_bits(bits_of(a) & broadcast(uint32_t{0x7fffffff}));
}

// Whether any lane of a comparison holds.
TROUPE_INLINE bool any(IVec mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((NativeI)mask.r[0], (NativeI)mask.r[0]) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((NativeF)(mask.r[0] | mask.r[1])) != 0;
#else
  return _mm_movemask_ps((NativeF)(mask.r[0] | mask.r[1] | mask.r[2] | mask.r[3])) != 0;
#endif
}

// a * b + c: fused where the level has it (v3, v4), rounded twice at v2.
TROUPE_INLINE Vec fmadd(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  c.r[0] = _mm512_fmadd_ps(a.r[0], b.r[0], c.r[0]);
#elif defined(__FMA__)
  TROUPE_EACH c.r[i] = _mm256_fmadd_ps(a.r[i], b.r[i], c.r[i]);
#else
  TROUPE_EACH c.r[i] = a.r[i] * b.r[i] + c.r[i];
#endif
  return c;
}
TROUPE_INLINE Vec sqrt(Vec a) {
#if defined(__AVX512F__)
  a.r[0] = _mm512_sqrt_ps(a.r[0]);
#elif defined(__AVX2__)
  TROUPE_EACH a.r[i] = _mm256_sqrt_ps(a.r[i]);
#else
  TROUPE_EACH a.r[i] = _mm_sqrt_ps(a.r[i]);
#endif
  return a;
}

// --- memory: unaligned; f32, or bf16 as its bits; the forms with n (0..16) touch the first n lanes only ---
TROUPE_INLINE Vec load(const float* p) {
  Vec y;
  TROUPE_EACH __builtin_memcpy(&y.r[i], p + i * kNativeLanes, sizeof(NativeF));
  return y;
}
TROUPE_INLINE void store(float* p, Vec a) {
  TROUPE_EACH __builtin_memcpy(p + i * kNativeLanes, &a.r[i], sizeof(NativeF));
}
TROUPE_INLINE IVec load(const uint32_t* p) {
  IVec y;
  TROUPE_EACH __builtin_memcpy(&y.r[i], p + i * kNativeLanes, sizeof(NativeU32));
  return y;
}
TROUPE_INLINE void store(uint32_t* p, IVec a) {
  TROUPE_EACH __builtin_memcpy(p + i * kNativeLanes, &a.r[i], sizeof(NativeU32));
}
TROUPE_INLINE Vec load(const uint16_t* p) {
  Vec y;
#if defined(__AVX512F__)
  y.r[0] = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif defined(__AVX2__)
  TROUPE_EACH y.r[i] =
      (__m256)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + i * 8))), 16);
#else
  TROUPE_EACH y.r[i] =
      (__m128)_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i*)(p + i * 4))), 16);
#endif
  return y;
}
// Round to nearest even; denormals become zeros; NaN stays a quiet NaN.
TROUPE_INLINE void store(uint16_t* p, Vec a) {
#if defined(__AVX512BF16__)
  const __m256bh y = _mm512_cvtneps_pbh(a.r[0]);
  __builtin_memcpy(p, &y, sizeof y);
#else
  const IVec bits = bits_of(a), one = broadcast(uint32_t{1}), infinity = broadcast(uint32_t{0x7f800000});
  const IVec magnitude = bits & broadcast(uint32_t{0x7fffffff}), sign = bits ^ magnitude;
  const IVec rounded = bits + broadcast(uint32_t{0x7fff}) + (shift_right(bits, 16) & one);
  const IVec is_nan = less(infinity, magnitude), is_tiny = less(magnitude, broadcast(uint32_t{0x00800000}));
  IVec y = (is_nan & (bits | broadcast(uint32_t{0x00400000}))) | (rounded - (is_nan & rounded));
  y = (is_tiny & sign) | (y - (is_tiny & y));
  y = shift_right(y, 16);
#if defined(__AVX2__)
  TROUPE_EACH {
    const __m256i packed =
        _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)y.r[i], (__m256i)y.r[i]), 0x08);
    _mm_storeu_si128((__m128i*)(p + i * 8), _mm256_castsi256_si128(packed));
  }
#else
  TROUPE_EACH _mm_storel_epi64((__m128i*)(p + i * 4), _mm_packus_epi32((__m128i)y.r[i], (__m128i)y.r[i]));
#endif
#endif
}
template <typename T>
TROUPE_INLINE Vec load(const T* p, int64_t n) {
#if defined(__AVX512F__)
  const __mmask16 mask = (__mmask16)((1u << n) - 1);
  Vec y;
  if constexpr (sizeof(T) == 4)
    y.r[0] = _mm512_maskz_loadu_ps(mask, p);
  else
    y.r[0] = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16);
  return y;
#else
  if (n == kLanes) return load(p);
  T lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(static_cast<const T*>(lanes));
#endif
}
template <typename T>
TROUPE_INLINE void store(T* p, Vec a, int64_t n) {
#if defined(__AVX512F__)
  const __mmask16 mask = (__mmask16)((1u << n) - 1);
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, mask, a.r[0]);
  else
    _mm256_mask_storeu_epi16(p, mask, (__m256i)_mm512_cvtneps_pbh(a.r[0]));
#else
  if (n == kLanes) return store(p, a);
  T lanes[kLanes];
  store(static_cast<T*>(lanes), a);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}

// All ones in the first n lanes (0..16).
TROUPE_INLINE IVec first_lanes(int64_t n) {
  const uint32_t lane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return less(load(static_cast<const uint32_t*>(lane)), broadcast(uint32_t(n)));
}

// --- over lanes, in one fixed tree: lane i with lane i + 8, then + 4, + 2, + 1 ---
#if defined(__AVX512F__)
TROUPE_INLINE __m128 halve(Vec a, __m128 (*combine)(__m128, __m128), __m256 (*combine_wide)(__m256, __m256)) {
  const __m256 w = combine_wide(_mm512_castps512_ps256(a.r[0]), _mm512_extractf32x8_ps(a.r[0], 1));
  return combine(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
}
#elif defined(__AVX2__)
TROUPE_INLINE __m128 halve(Vec a, __m128 (*combine)(__m128, __m128), __m256 (*combine_wide)(__m256, __m256)) {
  const __m256 w = combine_wide(a.r[0], a.r[1]);
  return combine(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
}
#else
TROUPE_INLINE __m128 halve(Vec a, __m128 (*combine)(__m128, __m128), void*) {
  return combine(combine(a.r[0], a.r[2]), combine(a.r[1], a.r[3]));
}
#endif
TROUPE_INLINE __m128 plus4(__m128 a, __m128 b) {
  return a + b;
}
TROUPE_INLINE __m128 max4(__m128 a, __m128 b) {
  return _mm_max_ps(a, b);
}
#if defined(__AVX2__)
TROUPE_INLINE __m256 plus8(__m256 a, __m256 b) {
  return a + b;
}
TROUPE_INLINE __m256 max8(__m256 a, __m256 b) {
  return _mm256_max_ps(a, b);
}
#else
constexpr void* plus8 = nullptr;
constexpr void* max8 = nullptr;
#endif
TROUPE_INLINE float sum_lanes(Vec a) {
  __m128 y = halve(a, plus4, plus8);
  y = y + _mm_movehl_ps(y, y);
  return y[0] + y[1];
}
TROUPE_INLINE float max_lanes(Vec a) {
  __m128 y = halve(a, max4, max8);
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return y[0] > y[1] ? y[0] : y[1];
}

}  // namespace troupe::kernels::TROUPE_ISA
