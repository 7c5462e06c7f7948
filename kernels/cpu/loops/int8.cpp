#include "kernels/cpu/loops/int8.hpp"

#include "kernels/cpu/loops/panel_tiles.hpp"
#include "kernels/cpu/loops/vec.hpp"
#include "kernels/cpu/loops/wide.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr float kLargest = 127.0f;
constexpr float kSmallest = 1e-30f;  // a row with nothing above it counts as zeros
#if defined(__AVX512VNNI__)
constexpr int kRowOffset = 128;  // of rows' integers: they are multiplied as unsigned ones
#else
constexpr int kRowOffset = 0;
#endif

// --- rounding ---

// Lanes as bytes; each fits into one, or its row's scale is NaN.
TROUPE_INLINE void store_bytes(int8_t* p, IVec a, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_cvtepi32_storeu_epi8(p, (__mmask16)((1u << n) - 1), (NativeI)a.r[0]);
#else
#if defined(__AVX2__)
  const __m256i words =  // of the lanes 0-3, 8-11, 4-7, 12-15
      _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)a.r[0], (__m256i)a.r[1]), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
#else
  const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32((__m128i)a.r[0], (__m128i)a.r[1]),
                                        _mm_packs_epi32((__m128i)a.r[2], (__m128i)a.r[3]));
#endif
  if (n == kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  int8_t lanes[kLanes];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(lanes), bytes);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}

// The largest magnitude; NaN when any element is not finite.
template <typename T>
TROUPE_INLINE float largest(const T* x, int64_t count) {
  Vec most = zero(), strange = zero();
  const auto look_at = [&](Vec a) {
    most = max(most, abs(a));
    strange = strange + (a - a);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) look_at(load(x + i));
  if (i < count) look_at(load(x + i, count - i));
  return max_lanes(most) + sum_lanes(strange);
}

template <typename T>
void quantise(const T* x, int64_t k, int64_t stride, const Int8Rows& rows) {
  const IVec offset = broadcast(uint32_t(kRowOffset));
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T* from = x + r * stride;
    int8_t* to = rows.integers + r * rows.depth;
    const float most = largest(from, k);
    const Vec factor = broadcast(most > kSmallest ? kLargest / most : most - most);  // NaN stays NaN
    rows.scales[r] = most > kSmallest ? most / kLargest : most - most;
    int64_t i = 0;
    for (; i + kLanes <= k; i += kLanes)
      store_bytes(to + i, nearest(load(from + i) * factor) + offset, kLanes);
    if (i < k) store_bytes(to + i, nearest(load(from + i, k - i) * factor) + offset, k - i);
    for (i = k; i < rows.depth; ++i) to[i] = int8_t(kRowOffset);
  }
}

void pack(const float* w, int64_t k, int64_t stride, const Int8Weight& packed) {
  const int64_t padded = (packed.n + kInt8Columns - 1) / kInt8Columns * kInt8Columns;
  for (int64_t n = 0; n < padded; ++n) {
    int8_t* to =
        packed.integers + n / kInt8Columns * kInt8Columns * packed.depth + n % kInt8Columns * kInt8Depth;
    const float* from = w + n * stride;
    const float most = n < packed.n ? largest(from, k) : 0;
    const Vec factor = broadcast(most > kSmallest ? kLargest / most : most - most);
    int32_t sum = 0;
    for (int64_t i = 0; i < packed.depth; i += kLanes) {
      uint32_t lanes[kLanes] = {};
      const int64_t count = k - i < kLanes ? k - i : kLanes;
      if (n < packed.n && count > 0)
        store(static_cast<uint32_t*>(lanes), nearest(load(from + i, count) * factor));
      for (int64_t j = 0; j < kLanes && i + j < packed.depth; ++j) {
        const auto integer = int8_t(lanes[j]);
        to[(i + j) / kInt8Depth * kInt8Depth * kInt8Columns + (i + j) % kInt8Depth] = integer;
        sum += integer;
      }
    }
    packed.scales[n] = most > kSmallest ? most / kLargest : most - most;
    packed.corrections[n] = -128 * sum;
  }
}

// --- products: four input channels of sixteen output channels at a time ---

#if defined(__AVX512VNNI__)
constexpr int kRows = 12, kBlocks = 2;  // of a tile: its sums stay in registers
#elif defined(__AVX2__)
constexpr int kRows = 4, kBlocks = 1;
#else
constexpr int kRows = 2, kBlocks = 1;
#endif

TROUPE_INLINE IVec load_fours(const int8_t* p) {
  return load(reinterpret_cast<const uint32_t*>(p));
}
TROUPE_INLINE IVec broadcast_four(const int8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return broadcast(four);
}

#if defined(__AVX512VNNI__)
using Weights = IVec;
TROUPE_INLINE Weights load_weights(const int8_t* p) {
  return load_fours(p);
}
TROUPE_INLINE IVec dot(IVec sum, IVec x, const Weights& w) {
  sum.r[0] = (NativeU32)_mm512_dpbusd_epi32((NativeI)sum.r[0], (NativeI)x.r[0], (NativeI)w.r[0]);
  return sum;
}
#else
// The magnitude of w times x with the sign of w: two such products are added in 16 bits, at most 2 * 127 *
// 127.
struct Weights {
  IVec integers, magnitudes;
};
#if defined(__AVX2__)
#define TROUPE_NATIVE_I8(name) _mm256_##name
#else
#define TROUPE_NATIVE_I8(name) _mm_##name
#endif
TROUPE_INLINE Weights load_weights(const int8_t* p) {
  Weights w{load_fours(p), {}};
  TROUPE_EACH w.magnitudes.r[i] = (NativeU32)TROUPE_NATIVE_I8(abs_epi8)((NativeI)w.integers.r[i]);
  return w;
}
TROUPE_INLINE IVec dot(IVec sum, IVec x, const Weights& w) {
  TROUPE_EACH {
    const NativeI signed_x = TROUPE_NATIVE_I8(sign_epi8)((NativeI)x.r[i], (NativeI)w.integers.r[i]);
    const NativeI pairs = TROUPE_NATIVE_I8(maddubs_epi16)((NativeI)w.magnitudes.r[i], signed_x);
    sum.r[i] += (NativeU32)TROUPE_NATIVE_I8(madd_epi16)(pairs, TROUPE_NATIVE_I8(set1_epi16)(1));
  }
  return sum;
}
#endif

struct Output {
  const float* bias;
  int64_t stride;
};

// `Rows` rows from `row` on, `Blocks` blocks from `block` on.
template <int Rows, int Blocks, typename T>
static void tile(const Int8Rows& x, const Int8Weight& w, int64_t row, int64_t block, const Output& out,
                 T* y) {
  IVec sum[Rows][Blocks];
  for (int b = 0; b < Blocks; ++b)
    for (int r = 0; r < Rows; ++r)
      sum[r][b] = kRowOffset == 0
                      ? broadcast(uint32_t{0})
                      : load(reinterpret_cast<const uint32_t*>(w.corrections) + (block + b) * kInt8Columns);
  const int64_t block_bytes = w.depth * kInt8Columns;
  const int8_t* weights = w.integers + block * block_bytes;
  const int8_t* rows = x.integers + row * x.depth;
  for (int64_t k = 0; k < w.depth; k += kInt8Depth) {
    Weights here[Blocks];
    for (int b = 0; b < Blocks; ++b) here[b] = load_weights(weights + b * block_bytes + k * kInt8Columns);
    for (int r = 0; r < Rows; ++r) {
      const IVec four = broadcast_four(rows + r * x.depth + k);
      for (int b = 0; b < Blocks; ++b) sum[r][b] = dot(sum[r][b], four, here[b]);
    }
  }
  for (int b = 0; b < Blocks; ++b) {
    const int64_t column = (block + b) * kInt8Columns;
    const int64_t count = w.n - column < kInt8Columns ? w.n - column : kInt8Columns;
    const Vec scale = load(static_cast<const float*>(w.scales + column));
    const Vec bias = out.bias == nullptr ? zero() : load(out.bias + column, count);
    for (int r = 0; r < Rows; ++r) {
      const Vec value = to_float(sum[r][b]) * (scale * broadcast(x.scales[row + r])) + bias;
      store(y + (row + r) * out.stride + column, value, count);
    }
  }
}

template <typename T>
void multiply(const Int8Rows& x, const Int8Weight& w, const float* bias, T* y, int64_t stride) {
  const Output out{bias, stride};
  for_each_tile<kRows, kBlocks>(x.rows, (w.n + kInt8Columns - 1) / kInt8Columns,
                                [&]<int Rows, int Blocks>(int64_t row, int64_t block) {
                                  tile<Rows, Blocks>(x, w, row, block, out, y);
                                });
}

}  // namespace

extern const Int8Loops int8_loops = {pack, quantise<float>, quantise<uint16_t>, multiply<float>,
                                     multiply<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
