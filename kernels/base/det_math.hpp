// Elementary functions in double that give the same bits on every machine: plain IEEE additions, products and
// divisions in a fixed order, no libm, no fused multiply-add (the project compiles with -ffp-contract=off).
// For schedules, initialisation, positions and everything else of the training function that is not a hot
// loop. Accuracy about 1e-15 relative (sin, cos: absolute). Methods: Cody & Waite 1980; Box & Muller 1958.
// Numbers below 2^-1022 count as zero, whether or not the thread flushes them. Pure functions.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace troupe::det {

inline constexpr double kPi = 0x1.921fb54442d18p+1;

// Correctly rounded by IEEE 754; compiles to the instruction.
inline double sqrt(double x) {
  return __builtin_sqrt(x);
}

// x to an integer power by repeated squaring. pow(x, 0) is 1.
constexpr double pow(double x, int64_t exponent) {
  uint64_t n = exponent < 0 ? uint64_t(0) - uint64_t(exponent) : uint64_t(exponent);
  double result = 1, square = x;
  for (; n != 0; n >>= 1, square *= square)
    if (n & 1) result *= square;
  if (exponent < 0) result = 1 / result;
  return result < 0x1p-1022 && result > -0x1p-1022 ? 0 : result;
}

namespace detail {
// 2^n for n in [-1022, 1023].
constexpr double power_of_two(int64_t n) {
  return std::bit_cast<double>(uint64_t(n + 1023) << 52);
}
// Nearest integer, halves away from zero. REQUIRES |x| < 2^62.
constexpr int64_t nearest(double x) {
  return int64_t(x < 0 ? x - 0.5 : x + 0.5);
}

// Horner's rule, highest coefficient first.
template <std::size_t N>
constexpr double horner(double x, const std::array<double, N>& coefficients) {
  double sum = 0;
  for (double c : coefficients) sum = sum * x + c;
  return sum;
}
}  // namespace detail

constexpr double exp(double x) {
  if (x != x) return x;
  if (x > 709.78) return std::numeric_limits<double>::infinity();
  if (x < -708.39) return 0;
  // x = n ln 2 + r with |r| <= ln(2) / 2; ln 2 in two parts, the first with trailing zeros so that n * part
  // is exact.
  const int64_t n = detail::nearest(x * 0x1.71547652b82fep+0);
  const double r = (x - double(n) * 0x1.62e42fefa0000p-1) - double(n) * 0x1.cf79abc9e3b39p-40;
  constexpr std::array<double, 14> kTaylor{
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
  const double value = detail::horner(r, kTaylor);
  const int64_t half = n / 2;  // in two steps, since n may be 1024
  return value * detail::power_of_two(half) * detail::power_of_two(n - half);
}

// Natural logarithm. log(0) is -infinity; of a negative number NaN.
constexpr double log(double x) {
  if (x != x || x < 0) return std::numeric_limits<double>::quiet_NaN();
  if (x < 0x1p-1022) return -std::numeric_limits<double>::infinity();
  if (x > std::numeric_limits<double>::max()) return x;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = int64_t(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 0x1.6a09e667f3bcdp+0) {  // sqrt 2: m in [0.707, 1.414]
    m *= 0.5;
    ++exponent;
  }
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716; log m = f - s (f - tail) with f = m - 1 keeps
  // the rounding error of s out of the leading term.
  const double f = m - 1;
  const double s = f / (m + 1);
  const double z = s * s;
  constexpr std::array<double, 11> kAtanh{2.0 / 23, 2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13,
                                          2.0 / 11, 2.0 / 9,  2.0 / 7,  2.0 / 5,  2.0 / 3};
  const double tail = z * detail::horner(z, kAtanh);
  const double low = double(exponent) * 0x1.cf79abc9e3b39p-40;
  return double(exponent) * 0x1.62e42fefa0000p-1 + ((f - s * (f - tail)) + low);
}

namespace detail {
constexpr double sin_near_zero(double r) {  // |r| <= pi / 4
  constexpr std::array<double, 8> kTaylor{-1.0 / 1307674368000.0,
                                          1.0 / 6227020800,
                                          -1.0 / 39916800,
                                          1.0 / 362880,
                                          -1.0 / 5040,
                                          1.0 / 120,
                                          -1.0 / 6,
                                          0.0};
  const double z = r * r;
  return r + r * horner(z, kTaylor);
}
constexpr double cos_near_zero(double r) {
  constexpr std::array<double, 9> kTaylor{1.0 / 20922789888000.0,
                                          -1.0 / 87178291200.0,
                                          1.0 / 479001600,
                                          -1.0 / 3628800,
                                          1.0 / 40320,
                                          -1.0 / 720,
                                          1.0 / 24,
                                          0.0,
                                          0.0};
  const double z = r * r;
  return 1 - (0.5 * z - horner(z, kTaylor));
}
// sin(x + quadrant * pi / 2) for |x| < 1e8: pi / 2 is subtracted in three parts.
constexpr double sine(double x, int64_t quadrant) {
  if (!(x < 1e8 && x > -1e8)) return std::numeric_limits<double>::quiet_NaN();
  const int64_t n = nearest(x * 0x1.45f306dc9c883p-1);
  const double q = double(n);
  const double r = ((x - q * 0x1.921fb54400000p+0) - q * 0x1.0b4611a600000p-34) - q * 0x1.3198a2e037073p-69;
  switch ((n + quadrant) & 3) {
    case 0:
      return sin_near_zero(r);
    case 1:
      return cos_near_zero(r);
    case 2:
      return -sin_near_zero(r);
    default:
      return -cos_near_zero(r);
  }
}
}  // namespace detail

// REQUIRES |x| < 1e8; NaN beyond.
constexpr double sin(double x) {
  return detail::sine(x, 0);
}
constexpr double cos(double x) {
  return detail::sine(x, 1);
}

// Two independent standard normal numbers from 2 x 64 random bits (Box & Muller).
inline std::array<double, 2> normal_pair(uint64_t bits_a, uint64_t bits_b) {
  const double u = (double(bits_a >> 11) + 1) * 0x1p-53;  // (0, 1]
  const double v = double(bits_b >> 11) * 0x1p-53;        // [0, 1)
  const double radius = sqrt(-2 * log(u));
  return {radius * cos(2 * kPi * v), radius * sin(2 * kPi * v)};
}

}  // namespace troupe::det
