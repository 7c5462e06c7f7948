// Products of small matrices in cache, for attention: C (M, N) = A B or += A B, where N is a multiple of 16,
// rows of B and C are contiguous, and A may lie any way round. Each element of C is one chain of sums over K
// in order, however the matrices are cut. For sources compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/factors.hpp"
#include "kernels/cpu/loops/runs.hpp"

namespace troupe::kernels::TROUPE_ISA {

constexpr int kTileRows = kRegisters == 4 ? 3 : 6;     // of C held in registers at once
constexpr int kTileVectors = kRegisters == 1 ? 4 : 1;  // columns of it, in vectors

// What is multiplied: A and B as they lie, and how many rows of B go into one step of a chain.
template <typename B>
struct FloatBy {  // f32 by f32, or by bf16 as its bits
  using Left = float;
  using Right = B;
  static constexpr int64_t kDepth = 1;
  TROUPE_INLINE Vec load_left(const float* a) { return broadcast(*a); }
  TROUPE_INLINE Vec load_right(const B* b, int64_t) { return load(b); }
  TROUPE_INLINE Vec add(Vec sum, Vec a, Vec b) { return fmadd(a, b, sum); }
};
struct PairByPair {  // pairs of bf16 by pairs
  using Left = uint32_t;
  using Right = uint32_t;
  static constexpr int64_t kDepth = 1;
  TROUPE_INLINE auto load_left(const uint32_t* a) { return Bf16Pairs::pairs_of(broadcast(*a)); }
  TROUPE_INLINE auto load_right(const uint32_t* b, int64_t) { return Bf16Pairs::pairs_of(load(b)); }
  TROUPE_INLINE Vec add(Vec sum, Bf16Pairs::Pairs a, Bf16Pairs::Pairs b) { return Bf16Pairs::add(sum, a, b); }
};
struct PairByRows {  // pairs of bf16 by two rows of it; by one and zeros at the end of an odd depth
  using Left = uint32_t;
  using Right = uint16_t;
  static constexpr int64_t kDepth = 2;
  TROUPE_INLINE auto load_left(const uint32_t* a) { return PairByPair::load_left(a); }
  TROUPE_INLINE auto load_right(const uint16_t* b, int64_t stride) {
    return Bf16Pairs::pairs_of(shift_right(bits_of(load(b)), 16) | bits_of(load(b + stride)));
  }
  TROUPE_INLINE auto load_last(const uint16_t* b) {
    return Bf16Pairs::pairs_of(shift_right(bits_of(load(b)), 16));
  }
  TROUPE_INLINE Vec add(Vec sum, Bf16Pairs::Pairs a, Bf16Pairs::Pairs b) { return Bf16Pairs::add(sum, a, b); }
};

template <typename Factors>
struct SmallProduct {
  const typename Factors::Left* a;  // element (m, k) at a[m * a_row + k / kDepth * a_col]
  int64_t a_row, a_col;
  const typename Factors::Right* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  int64_t rows, cols, depth;  // M, N, K; of PairByPair K is in pairs
  bool accumulate;
};

template <int Rows, int Vectors, typename Factors>
TROUPE_INLINE void product_tile(const SmallProduct<Factors>& p, int64_t row, int64_t col) {
  Vec sum[Rows][Vectors];
  float* c = p.c + row * p.c_stride + col;
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      sum[r][v] = p.accumulate ? load(c + r * p.c_stride + v * kLanes) : zero();
  const auto* a = p.a + row * p.a_row;
  const auto* b = p.b + col;
  const auto add = [&](auto load_right) TROUPE_BODY {
    decltype(load_right(b)) factor[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) factor[v] = load_right(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const auto scalar = Factors::load_left(a + r * p.a_row);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Factors::add(sum[r][v], scalar, factor[v]);
    }
  };
  int64_t k = 0;
  for (; k + Factors::kDepth <= p.depth;
       k += Factors::kDepth, a += p.a_col, b += Factors::kDepth * p.b_stride)
    add([&](const auto* from) TROUPE_BODY { return Factors::load_right(from, p.b_stride); });
  if constexpr (Factors::kDepth > 1)
    if (k < p.depth) add([](const auto* from) TROUPE_BODY { return Factors::load_last(from); });
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(c + r * p.c_stride + v * kLanes, sum[r][v]);
}

template <int Vectors, typename Factors>
static void product_columns(const SmallProduct<Factors>& p, int64_t col) {
  int64_t row = 0;
  for (; row + kTileRows <= p.rows; row += kTileRows) product_tile<kTileRows, Vectors>(p, row, col);
  switch (p.rows - row) {
    case 1:
      return product_tile<1, Vectors>(p, row, col);
    case 2:
      return product_tile<2, Vectors>(p, row, col);
    case 3:
      return product_tile<3, Vectors>(p, row, col);
    case 4:
      return product_tile<4, Vectors>(p, row, col);
    case 5:
      return product_tile<5, Vectors>(p, row, col);
    default:
      return;
  }
}

template <typename Factors>
static void multiply(const SmallProduct<Factors>& p) {
  int64_t col = 0;
  for (; col + kTileVectors * kLanes <= p.cols; col += kTileVectors * kLanes)
    product_columns<kTileVectors>(p, col);
  if constexpr (kTileVectors > 2)
    for (; col + 2 * kLanes <= p.cols; col += 2 * kLanes) product_columns<2>(p, col);
  for (; col < p.cols; col += kLanes) product_columns<1>(p, col);
}

}  // namespace troupe::kernels::TROUPE_ISA
