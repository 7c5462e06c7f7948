// exp, log and tanh of kernels/cpu/loops/vec_math.hpp for one float, operation for operation: on a GPU they
// give the bits that CPUs with fused multiply-add give. No libm.
#pragma once

#include "kernels/cuda/device/portable.hpp"

namespace troupe::kernels::device {

TROUPE_DEVICE float fused(float a, float b, float c) {  // a * b + c, rounded once
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}
TROUPE_DEVICE float square_root(float x) {  // correctly rounded
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return __builtin_sqrtf(x);
#endif
}
TROUPE_DEVICE float floor(float x) {
#if defined(__CUDA_ARCH__)
  return ::floorf(x);
#else
  return __builtin_floorf(x);
#endif
}
TROUPE_DEVICE int32_t nearest(float x) {  // ties to even. REQUIRES |x| < 2^31
#if defined(__CUDA_ARCH__)
  return __float2int_rn(x);
#else
  return int32_t(__builtin_lrintf(x));
#endif
}

// Zero below -86.6, infinity above 88.37; NaN stays NaN.
TROUPE_DEVICE float exp(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const bool below = x < -86.6f;
  const float raised = larger(-86.6f, x);
  const float held = 89.0f < raised ? 89.0f : raised;
  const float shifted = fused(held, 1.44269504088896341f, magic);
  const float n = shifted - magic;
  const float f = fused(n, 2.12194440e-4f, fused(n, -0.693359375f, held));
  float p = 1.9875691500e-4f;
  p = fused(p, f, 1.3981999507e-3f);
  p = fused(p, f, 8.3334519073e-3f);
  p = fused(p, f, 4.1665795894e-2f);
  p = fused(p, f, 1.6666665459e-1f);
  p = fused(p, f, 5.0000001201e-1f);
  p = fused(p, f * f, f + 1.0f);
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(magic) + 127u;
  const float y = p * std::bit_cast<float>(exponent << 23);
  return below ? 0.0f : y;
}

// Natural logarithm of a positive, normal, finite number; anything else gives an unspecified finite number.
TROUPE_DEVICE float log(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  float exponent = float(int32_t((bits >> 23) - 126u));
  float m = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  const bool low = m < 0.707106781186547524f;
  exponent = exponent - (low ? 1.0f : 0.0f);
  m = m - 1.0f + (low ? m : 0.0f);
  const float z = m * m;
  float p = 7.0376836292e-2f;
  p = fused(p, m, -1.1514610310e-1f);
  p = fused(p, m, 1.1676998740e-1f);
  p = fused(p, m, -1.2420140846e-1f);
  p = fused(p, m, 1.4249322787e-1f);
  p = fused(p, m, -1.6668057665e-1f);
  p = fused(p, m, 2.0000714765e-1f);
  p = fused(p, m, -2.4999993993e-1f);
  p = fused(p, m, 3.3333331174e-1f);
  float y = fused(exponent, -2.12194440e-4f, p * m * z);
  y = fused(-0.5f, z, y);
  return fused(exponent, 0.693359375f, m + y);
}

TROUPE_DEVICE float tanh(float x) {
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = fused(p, z, 2.06390887954e-2f);
  p = fused(p, z, -5.37397155531e-2f);
  p = fused(p, z, 1.33314422036e-1f);
  p = fused(p, z, -3.33332819422e-1f);
  const float small = fused(p * z, x, x);
  const float magnitude = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu);
  const float large = 1.0f - 2.0f / (exp(magnitude + magnitude) + 1.0f);
  const uint32_t sign = std::bit_cast<uint32_t>(x) & 0x80000000u;
  const float signed_large = std::bit_cast<float>(std::bit_cast<uint32_t>(large) | sign);
  return magnitude < 0.625f ? small : signed_large;
}

}  // namespace troupe::kernels::device
