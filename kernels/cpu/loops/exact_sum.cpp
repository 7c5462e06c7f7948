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

// Calls visit(first, row, lanes) for each eight elements; lanes that are missing hold zero.
template <typename Visit>
TROUPE_INLINE void for_each_row(const int64_t* values, int64_t count, Visit visit) {
  int64_t i = 0;
  for (; i + kWideLanes <= count; i += kWideLanes) visit(i, load_wide(values + i), kWideLanes);
  if (i == count) return;
  int64_t rest[kWideLanes] = {};
  for (int lane = 0; i + lane < count; ++lane) rest[lane] = values[i + lane];
  visit(i, load_wide(rest), count - i);
}

uint64_t largest_magnitude(const int64_t* total, int64_t count) {
  Wide lowest = broadcast_wide(0);  // of the magnitudes below zero: -2^63 has none above
  for_each_row(
      total, count, [&](int64_t, Wide v, int64_t) __attribute__((always_inline)) {
        const Wide positive = negative(v) ^ broadcast_wide(~uint64_t{0});
        lowest = min_signed(lowest, (v ^ positive) - positive);
      });
  return 0 - uint64_t(min_lane_signed(lowest));
}

// Each element becomes numerators(first, row) >> shift, rounded down.
template <typename Numerators>
TROUPE_INLINE RoundedBlock round_by(int shift, const int64_t* total, int64_t count, Numerators numerators,
                                    int32_t* mantissa) {
  Wide any = broadcast_wide(0), magnitude = any;
  for_each_row(
      total, count, [&](int64_t first, Wide v, int64_t lanes) __attribute__((always_inline)) {
        const Wide n = numerators(first, v);
        const Wide sign = negative(n), complemented = shift_right(n ^ sign, shift);
        const Wide m = complemented ^ sign;
        magnitude = magnitude | complemented;
        any = any | m;
        store_narrow(mantissa + first, m, lanes);
      });
  return {or_lanes(any), or_lanes(magnitude), shift};
}

RoundedBlock round(const int64_t* total, int64_t count, uint64_t offset, const RoundRule* rule,
                   int32_t* mantissa) {
  const uint64_t limit = (uint64_t{1} << (rule->bits - 1)) - 1;
  const RoundedBlock plain = round_by(
      0, total, count, [](int64_t, Wide v) __attribute__((always_inline)) { return v; }, mantissa);
  if (plain.magnitude < limit) return plain;  // complemented: a magnitude may be larger by one

  const uint64_t max = largest_magnitude(total, count);
  int shift = 0;
  while ((max >> shift) > limit || ((max >> shift) == limit && (max & ((uint64_t{1} << shift) - 1)) != 0))
    ++shift;
  if (shift == 0) return plain;
  if (rule->bits > 8) {  // to the nearest, ties to even
    const Wide half = broadcast_wide((uint64_t{1} << (shift - 1)) - 1), one = broadcast_wide(1);
    return round_by(
        shift, total, count,
        [&](int64_t, Wide v)
            __attribute__((always_inline)) { return v + half + (shift_right(v, shift) & one); },
        mantissa);
  }
  uint32_t buffer[random_words_room(kBlock)];
  const uint32_t* words = random_words(rule->key, offset, count, buffer);
  const int down = shift < 32 ? 32 - shift : 0, up = shift > 32 ? shift - 32 : 0;
  const Wide low = broadcast_wide(0xffffffff);
  return round_by(
      shift, total, count,
      [&](int64_t first, Wide v) __attribute__((always_inline)) {
        const Wide word = load_narrow(reinterpret_cast<const int32_t*>(words) + first) & low;
        return v + shift_left(shift_right(word, down), up);
      },
      mantissa);
}

}  // namespace

extern const ExactSumLoops exact_sum_loops = {fold, fold_float, round};

}  // namespace troupe::kernels::TROUPE_ISA
