// Products of small matrices in cache, for attention: C (M, N) = A B or += A B, where N is a multiple of 16,
// rows of B (f32, or bf16 as its bits) and C are contiguous, and A may lie any way round. Each element of C
// is one fmadd chain over K in order, however the matrices are cut. For sources compiled by troupe_isa_loops
// only.
#pragma once

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

constexpr int kTileRows = kRegisters == 4 ? 3 : 6;     // of C held in registers at once
constexpr int kTileVectors = kRegisters == 1 ? 4 : 1;  // columns of it, in vectors

template <typename B>
struct SmallProduct {
  const float* a;  // element (m, k) at a[m * a_row + k * a_col]
  int64_t a_row, a_col;
  const B* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  int64_t rows, cols, depth;  // M, N, K
  bool accumulate;
};

template <int Rows, int Vectors, typename B>
TROUPE_INLINE void product_tile(const SmallProduct<B>& p, int64_t row, int64_t col) {
  Vec sum[Rows][Vectors];
  float* c = p.c + row * p.c_stride + col;
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      sum[r][v] = p.accumulate ? load(c + r * p.c_stride + v * kLanes) : zero();
  const float* a = p.a + row * p.a_row;
  const B* b = p.b + col;
  for (int64_t k = 0; k < p.depth; ++k, a += p.a_col, b += p.b_stride) {
    Vec factor[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) factor[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec scalar = broadcast(a[r * p.a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[r][v] = fmadd(scalar, factor[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(c + r * p.c_stride + v * kLanes, sum[r][v]);
}

template <int Vectors, typename B>
static void product_columns(const SmallProduct<B>& p, int64_t col) {
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

template <typename B = float>
static void multiply(const SmallProduct<B>& p) {
  int64_t col = 0;
  for (; col + kTileVectors * kLanes <= p.cols; col += kTileVectors * kLanes)
    product_columns<kTileVectors>(p, col);
  if constexpr (kTileVectors > 2)
    for (; col + 2 * kLanes <= p.cols; col += 2 * kLanes) product_columns<2>(p, col);
  for (; col < p.cols; col += kLanes) product_columns<1>(p, col);
}

}  // namespace troupe::kernels::TROUPE_ISA
