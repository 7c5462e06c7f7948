#include "kernels/cpu/loops/exact_sum.hpp"

#include "kernels/cpu/loops/dropout.hpp"
#include "kernels/cpu/loops/wide.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr int kBlock = 256;
constexpr int kGrid = 40;  // units of 2^-40
constexpr uint32_t kInfinity = 0x7f800000, kNotFinite = 1, kOverflow = 2;

// The largest magnitude of a block, as the bits of a float: they are ordered as the numbers are, NaN on top.
TROUPE_INLINE uint32_t magnitude_max(const float* x, int64_t count) {
  const IVec mask = broadcast(uint32_t{0x7fffffff});
  IVec top = broadcast(uint32_t{0});
  const auto raise = [&](Vec v) __attribute__((always_inline)) {
    const IVec bits = bits_of(v) & mask;
    TROUPE_EACH top.r[i] =
        (NativeU32)((NativeS32)bits.r[i] > (NativeS32)top.r[i] ? (NativeS32)bits.r[i] : (NativeS32)top.r[i]);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) raise(load(x + i));
  if (i < count) raise(load(x + i, count - i));
  uint32_t lanes[kLanes], result = 0;
  store(static_cast<uint32_t*>(lanes), top);
  for (uint32_t lane : lanes) result = lane > result ? lane : result;
  return result;
}

// log2 of the step in units: the smallest power of two with max <= (2^(bits-1) - 1) * step, not below the
// grid.
TROUPE_INLINE int step_exponent(uint32_t max_bits, int bits) {
  const int exponent = int(max_bits >> 23) - 127 + 1;  // max < 2^exponent
  const uint32_t fraction = max_bits & 0x007fffff;
  const uint32_t room = (1u << 23) - (1u << (24 - (bits - 1)));  // fraction of (2^(bits-1) - 1) / 2^(bits-2)
  const int step = exponent - (bits - 1) + (fraction > room) + kGrid;
  return step > 0 ? step : 0;
}

TROUPE_INLINE float power_of_two(int exponent) {  // -126..127
  const uint32_t bits = uint32_t(exponent + 127) << 23;
  float y;
  __builtin_memcpy(&y, &bits, sizeof y);
  return y;
}

// Sixteen rounded mantissas. Stochastic: floor(x + u), u the middle of one of 2^16 intervals, so that zero
// stays zero, integers stay themselves and what is denormal makes no difference.
template <bool Stochastic>
TROUPE_INLINE IVec rounded(Vec x, const uint32_t* words) {
  if constexpr (!Stochastic) return nearest(x);
  const Vec u = to_float(shift_right(load(words), 16)) * broadcast(0x1p-16f) + broadcast(0x1p-17f);
  return nearest(floor(x + u));
}

template <bool Stochastic>
TROUPE_INLINE void add_rounded(const float* x, int64_t count, int step, const uint32_t* words, int64_t* sum) {
  const Vec scale = broadcast(power_of_two(kGrid - step));
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Wide low, high;
    widen(rounded<Stochastic>(load(x + i) * scale, words + i), low, high);
    store_wide(sum + i, load_wide(sum + i) + shift_left(low, step));
    store_wide(sum + i + 8, load_wide(sum + i + 8) + shift_left(high, step));
  }
  if (i == count) return;
  uint32_t lanes[kLanes];
  store(static_cast<uint32_t*>(lanes), rounded<Stochastic>(load(x + i, count - i) * scale, words + i));
  for (int lane = 0; i < count; ++i, ++lane)
    sum[i] = int64_t(uint64_t(sum[i]) + (uint64_t(int64_t(int32_t(lanes[lane]))) << step));
}

uint32_t fold(const float* gradient, int64_t count, uint64_t offset, const FoldRule* rule, int64_t* sum) {
  const uint32_t max_bits = magnitude_max(gradient, count);
  if (max_bits >= kInfinity) return kNotFinite;
  float max;
  __builtin_memcpy(&max, &max_bits, sizeof max);
  if (max > rule->limit) return kOverflow;
  if (max_bits == 0) return 0;
  const int step = step_exponent(max_bits, rule->bits);
  if (rule->bits > 8) {
    add_rounded<false>(gradient, count, step, nullptr, sum);
  } else {
    uint32_t words[random_words_room(kBlock)];
    add_rounded<true>(gradient, count, step, random_words(rule->key, offset, count, words), sum);
  }
  return 0;
}

uint32_t fold_float(const float* gradient, int64_t count, float* sum) {
  const uint32_t flags = magnitude_max(gradient, count) >= kInfinity ? kNotFinite : 0;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(sum + i, load(sum + i) + load(gradient + i));
  if (i < count) store(sum + i, load(sum + i, count - i) + load(gradient + i, count - i), count - i);
  return flags;
}

// The loops below are plain: the compiler makes vectors of them at each level.
uint8_t round(const int64_t* total, int64_t count, uint64_t offset, const RoundRule* rule,
              int32_t* mantissa) {
  uint64_t max = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t magnitude = total[i] < 0 ? 0 - uint64_t(total[i]) : uint64_t(total[i]);
    max = magnitude > max ? magnitude : max;
  }
  const uint64_t limit = (uint64_t{1} << (rule->bits - 1)) - 1;
  int shift = 0;
  while ((max >> shift) > limit || ((max >> shift) == limit && (max & ((uint64_t{1} << shift) - 1)) != 0))
    ++shift;
  if (shift == 0) {
    for (int64_t i = 0; i < count; ++i) mantissa[i] = int32_t(total[i]);
  } else if (rule->bits > 8) {
    const uint64_t half = (uint64_t{1} << (shift - 1)) - 1;
    for (int64_t i = 0; i < count; ++i)
      mantissa[i] = int32_t(int64_t(uint64_t(total[i]) + half + uint64_t((total[i] >> shift) & 1)) >> shift);
  } else {
    uint32_t buffer[random_words_room(kBlock)];
    const uint32_t* words = random_words(rule->key, offset, count, buffer);
    const int down = shift < 32 ? 32 - shift : 0, up = shift > 32 ? shift - 32 : 0;
    for (int64_t i = 0; i < count; ++i)
      mantissa[i] = int32_t(int64_t(uint64_t(total[i]) + (uint64_t(words[i] >> down) << up)) >> shift);
  }
  return uint8_t(shift);
}

}  // namespace

extern const ExactSumLoops exact_sum_loops = {fold, fold_float, round};

}  // namespace troupe::kernels::TROUPE_ISA
