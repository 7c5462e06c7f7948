// exp, log and tanh of sixteen floats as polynomials, after Moshier's Cephes; no libm. They use fmadd, so v3
// and v4 give the same bits and v2 may differ in the last one. Errors: exp and log 2 ulp, tanh 3 ulp.
#pragma once

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

// Zero below -86.6, infinity above 88.37; NaN stays NaN.
TROUPE_INLINE Vec exp(Vec x) {
  const Vec magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const IVec below = less(x, broadcast(-86.6f));
  x = min(broadcast(89.0f), max(broadcast(-86.6f), x));
  const Vec shifted = fmadd(x, broadcast(1.44269504088896341f), magic);
  const Vec n = shifted - magic;
  const Vec f = fmadd(n, broadcast(2.12194440e-4f), fmadd(n, broadcast(-0.693359375f), x));
  Vec p = broadcast(1.9875691500e-4f);
  p = fmadd(p, f, broadcast(1.3981999507e-3f));
  p = fmadd(p, f, broadcast(8.3334519073e-3f));
  p = fmadd(p, f, broadcast(4.1665795894e-2f));
  p = fmadd(p, f, broadcast(1.6666665459e-1f));
  p = fmadd(p, f, broadcast(5.0000001201e-1f));
  p = fmadd(p, f * f, f + broadcast(1.0f));
  const IVec exponent = bits_of(shifted) - bits_of(magic) + broadcast(uint32_t{127});
  const Vec y = p * float_of_bits(shift_left(exponent, 23));
  return select(below, zero(), y);
}

// Natural logarithm of a positive, normal, finite number; anything else gives an unspecified finite number.
TROUPE_INLINE Vec log(Vec x) {
  const IVec bits = bits_of(x);
  const IVec mantissa = (bits & broadcast(uint32_t{0x007fffff})) | broadcast(uint32_t{0x3f000000});
  Vec exponent = to_float(shift_right(bits, 23) - broadcast(uint32_t{126}));
  Vec m = float_of_bits(mantissa);  // [0.5, 1)
  const IVec low = less(m, broadcast(0.707106781186547524f));
  exponent = exponent - keep_where(low, broadcast(1.0f));
  m = m - broadcast(1.0f) + keep_where(low, m);
  const Vec z = m * m;
  Vec p = broadcast(7.0376836292e-2f);
  p = fmadd(p, m, broadcast(-1.1514610310e-1f));
  p = fmadd(p, m, broadcast(1.1676998740e-1f));
  p = fmadd(p, m, broadcast(-1.2420140846e-1f));
  p = fmadd(p, m, broadcast(1.4249322787e-1f));
  p = fmadd(p, m, broadcast(-1.6668057665e-1f));
  p = fmadd(p, m, broadcast(2.0000714765e-1f));
  p = fmadd(p, m, broadcast(-2.4999993993e-1f));
  p = fmadd(p, m, broadcast(3.3333331174e-1f));
  Vec y = fmadd(exponent, broadcast(-2.12194440e-4f), p * m * z);
  y = fmadd(broadcast(-0.5f), z, y);
  return fmadd(exponent, broadcast(0.693359375f), m + y);
}

TROUPE_INLINE Vec tanh(Vec x) {
  const Vec z = x * x;
  Vec p = broadcast(-5.70498872745e-3f);
  p = fmadd(p, z, broadcast(2.06390887954e-2f));
  p = fmadd(p, z, broadcast(-5.37397155531e-2f));
  p = fmadd(p, z, broadcast(1.33314422036e-1f));
  p = fmadd(p, z, broadcast(-3.33332819422e-1f));
  const Vec small = fmadd(p * z, x, x);
  const Vec one = broadcast(1.0f), magnitude = abs(x);
  const Vec large = one - broadcast(2.0f) / (exp(magnitude + magnitude) + one);
  const IVec sign = bits_of(x) & broadcast(uint32_t{0x80000000});
  const Vec signed_large = float_of_bits(bits_of(large) | sign);
  return select(less(magnitude, broadcast(0.625f)), small, signed_large);
}

}  // namespace troupe::kernels::TROUPE_ISA
