// What a product in panels multiplies at once: kGroup elements of the depth, one of a row with sixteen of a
// panel. For sources compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

struct F32 {
  using Element = float;
  static constexpr int64_t kGroup = 1;
  TROUPE_INLINE Vec load_weights(const float* p) { return load(p); }
  TROUPE_INLINE Vec load_row(const float* p) { return broadcast(*p); }
  TROUPE_INLINE Vec add(Vec sum, Vec x, Vec w) { return fmadd(x, w, sum); }
};

struct Bf16Pairs {
  using Element = uint16_t;
  static constexpr int64_t kGroup = 2;
#if defined(__AVX512BF16__)
  using Pairs = IVec;
  TROUPE_INLINE Pairs pairs_of(IVec both) {
    return both;
  }
  TROUPE_INLINE Vec add(Vec sum, Pairs x, Pairs w) {
    sum.r[0] = _mm512_dpbf16_ps(sum.r[0], (__m512bh)x.r[0], (__m512bh)w.r[0]);
    return sum;
  }
#else
  struct Pairs {
    Vec even, odd;
  };
  TROUPE_INLINE Pairs pairs_of(IVec both) {
    return {float_of_bits(shift_left(both, 16)), float_of_bits(both & broadcast(uint32_t{0xffff0000}))};
  }
  TROUPE_INLINE Vec add(Vec sum, Pairs x, Pairs w) {
    return fmadd(x.odd, w.odd, fmadd(x.even, w.even, sum));
  }
#endif
  TROUPE_INLINE Pairs load_weights(const uint16_t* p) {
    return pairs_of(load(reinterpret_cast<const uint32_t*>(p)));
  }
  TROUPE_INLINE Pairs load_row(const uint16_t* p) {
    uint32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return pairs_of(broadcast(pair));
  }
};

}  // namespace troupe::kernels::TROUPE_ISA
