// Tensor cores, a warp at a time: tiles of bf16 in shared memory, their fragments in registers, and the two
// products that attention is made of. Fragments lie as PTX says of ldmatrix and mma.m16n8k16: with g = lane /
// 4 and t = lane % 4, a result c (16, 8) of a lane is c[0..1] = (g, 2t..2t+1) and c[2..3] = (g + 8,
// 2t..2t+1). So the results of two neighbouring products, rounded to bf16, are the first factor of the next:
// nothing goes through shared memory.
//
// Of a Block (portable.hpp) these need:
//   load_matrices<Transposed>(f)   f gives a MatrixLoad: ldmatrix.x4, four 8 x 8 matrices, lane l naming row
//   l % 8 of
//                                  matrix l / 8 and getting its part of matrix i in to[i]
//   multiply(f)                    f gives a MatrixProduct: c (16, 8) += a (16, 16) b (16, 8)
//   quad_max(f), quad_sum(f)       as warp_max, over the four lanes that share rows
//   apart(f)                       as each, without the barrier: for registers alone
#pragma once

#include "kernels/cuda/device/portable.hpp"

namespace troupe::kernels::device {

struct MatrixLoad {
  const uint16_t* row;
  uint32_t* to;  // 4
};
struct MatrixProduct {
  const uint32_t* a;  // 4
  const uint32_t* b;  // 2
  float* c;           // 4
};

// Rows of a fragment's results, and the column of the first of a pair.
TROUPE_DEVICE int fragment_row(int lane, int half) {
  return lane / 4 + 8 * half;
}
TROUPE_DEVICE int fragment_col(int lane) {
  return lane % 4 * 2;
}
struct alignas(4) Pair {
  uint16_t v[2];
};
TROUPE_DEVICE uint32_t pack(float low, float high) {
  return uint32_t(narrow<uint16_t>(low)) | uint32_t(narrow<uint16_t>(high)) << 16;
}

// kRows of kCols bf16. Rows start 16 bytes further on in the banks each: eight of them are read at once.
template <int kRows, int kCols>
struct BfTile {
  static constexpr int kStride = kCols + 8;
  alignas(16) uint16_t x[kRows][kStride];

  // Rows [row, row + rows) and `size` columns from `col` on of a matrix, zeros beyond. REQUIRES 16-byte rows.
  TROUPE_DEVICE void read(int thread, int threads, const Rows<const uint16_t>& from, int64_t row,
                          int64_t rows, int64_t col, int size) {
    constexpr int kPieces = kCols / kVector;
    for (int i = thread; i < kRows * kPieces; i += threads) {
      const int r = i / kPieces, c = i % kPieces * kVector;
      Sixteen<uint16_t> piece = {};
      if (r < rows && c < size) piece = piece_at<Sixteen<uint16_t>>(from.row(row + r) + col + c);
      piece_at<Sixteen<uint16_t>>(&x[r][c]) = piece;
    }
  }
};

// c[j] (16, 8 each) += the 16 rows of `a` from row0(thread) on times the transposed rows 8 j.. of `b`: a b^T.
// results(own) is the array c[kRows / 8][4].
template <int kRowsA, int kRows, int kCols, typename Block, typename Row0, typename Results>
TROUPE_DEVICE void multiply_rows(Block& block, const BfTile<kRowsA, kCols>& a, const BfTile<kRows, kCols>& b,
                                 Row0&& row0, Results&& results) {
  using Registers = typename Block::Registers;
  TROUPE_UNROLL for (int c = 0; c < kCols; c += 32) {  // two steps of 16 columns: one load of b serves both
    TROUPE_UNROLL for (int half = 0; half < 2; ++half)
        block.template load_matrices<false>([&](int thread, Registers& own) -> MatrixLoad {
          const int lane = thread % kWarp;
          return {&a.x[row0(thread) + lane % 16][c + 16 * half + lane / 16 * 8], own.a[half]};
        });
    TROUPE_UNROLL for (int j = 0; j < kRows / 8; ++j) {
      block.template load_matrices<false>([&](int thread, Registers& own) -> MatrixLoad {
        const int lane = thread % kWarp;
        return {&b.x[8 * j + lane % 8][c + lane / 8 * 8], own.b};
      });
      TROUPE_UNROLL for (int half = 0; half < 2; ++half)
          block.multiply([&](int, Registers& own) -> MatrixProduct {
            return {own.a[half], own.b + 2 * half, results(own)[j]};
          });
    }
  }
}

// c[n] (16, 8 each) += a (16, kRows) b (kRows, kCols), a given as fragments: factor(own) is a[kRows / 16][4],
// and results(own) is c[kCols / 8][4].
template <int kRows, int kCols, typename Block, typename FactorOf, typename Results>
TROUPE_DEVICE void multiply_fragments(Block& block, FactorOf&& factor, const BfTile<kRows, kCols>& b,
                                      Results&& results) {
  using Registers = typename Block::Registers;
  TROUPE_UNROLL for (int k = 0; k < kRows / 16; ++k) TROUPE_UNROLL for (int n = 0; n < kCols / 8; n += 2) {
    block.template load_matrices<true>([&](int thread, Registers& own) -> MatrixLoad {
      const int lane = thread % kWarp;
      return {&b.x[16 * k + lane % 16][8 * n + lane / 16 * 8], own.b};
    });
    TROUPE_UNROLL for (int half = 0; half < 2; ++half)
        block.multiply([&](int, Registers& own) -> MatrixProduct {
          return {factor(own)[k], own.b + 2 * half, results(own)[n + half]};
        });
  }
}

// The fragments of a first factor (16, 16 each) from results c[2 k] and c[2 k + 1].
template <int kSteps>
TROUPE_DEVICE void pack_fragments(const float (&c)[2 * kSteps][4], uint32_t (&a)[kSteps][4]) {
  TROUPE_UNROLL for (int k = 0; k < kSteps; ++k) TROUPE_UNROLL for (int i = 0; i < 4; ++i) a[k][i] =
      pack(c[2 * k + i / 2][i % 2 * 2], c[2 * k + i / 2][i % 2 * 2 + 1]);
}

}  // namespace troupe::kernels::device
