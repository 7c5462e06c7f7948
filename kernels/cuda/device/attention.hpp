// Kernels of kernels/cuda/attention.cpp for any type and head size up to kSize: exact softmax over blocks of
// keys with a running maximum (Dao et al. 2022, "FlashAttention"), in f32 without tensor cores. A block takes
// 32 queries of one head; eight threads share a row. Sums over keys and channels run in order.
#pragma once

#include "kernels/cuda/device/attention_parts.hpp"

namespace troupe::kernels::device {

constexpr int kAttentionTile = 32;                                  // queries of a block, and keys at a time
constexpr int kAttentionParts = 8;                                  // threads of a row
constexpr int kAttentionScores = kAttentionTile / kAttentionParts;  // scores of a row that a thread computes

// kAttentionTile rows of one head in f32, the columns from D on zero, the rows outside too.
template <int kSize>
struct HeadRows {
  float x[kAttentionTile][kSize + 1];  // one more: rows start in different banks

  template <typename T>
  TROUPE_DEVICE void read(int thread, int threads, const Rows<const T>& from, int64_t row, int64_t rows,
                          int64_t col, int size, float scale) {
    for (int i = thread; i < kAttentionTile * kSize; i += threads) {
      const int r = i / kSize, d = i % kSize;
      x[r][d] = r < rows && d < size ? widen(from.row(row + r)[col + d]) * scale : 0.0f;
    }
  }
  TROUPE_DEVICE float dot(int row, const HeadRows& other, int other_row, int size) const {
    float sum = 0;
    for (int d = 0; d < size; ++d) sum = fused(x[row][d], other.x[other_row][d], sum);
    return sum;
  }
};

template <typename T, int kSize>
struct AttentionForward {
  static constexpr int kThreads = kAttentionTile * kAttentionParts;
  static constexpr int kOwn = kSize / kAttentionParts;  // channels of the output that a thread sums
  struct Shared {
    HeadRows<kSize> q, k, v;
    float scores[kAttentionTile][kAttentionTile + 1];
    float sums[kAttentionTile][kAttentionParts];
  };
  struct Registers {
    float out[kOwn];
    float max, sum, kept;
  };

  Heads heads;
  Rows<const T> q, k, v;
  Rows<T> out;
  float* lse = nullptr;  // (B * H, Tq), or null

  static int64_t tiles(int64_t queries) { return ceil_div(queries, kAttentionTile); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const HeadTile at =
        HeadTile::of(block.index(), ceil_div(heads.queries, kAttentionTile), heads.heads, kAttentionTile);
    const int64_t rows = smaller(int64_t{kAttentionTile}, heads.queries - at.first);
    const int64_t limit = heads.visible(at.b, at.first + rows - 1);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers& own) {
      shared.q.read(thread, kThreads, q, at.b * heads.queries + at.first, rows, at.h * heads.size, heads.size,
                    heads.scale);
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) own.out[i] = 0;
      own.max = minus_infinity();
      own.sum = 0;
    });
    for (int64_t key = 0; key < limit; key += kAttentionTile) attend(block, at, key, limit);
    block.each([&](int thread, Registers& own) {
      const int row = thread / kAttentionParts, part = thread % kAttentionParts;
      if (row >= rows) return;
      const float inverse = own.sum > 0 ? 1.0f / own.sum : own.sum;  // 0 for no keys; keeps a NaN
      T* to = out.row(at.b * heads.queries + at.first + row) + at.h * heads.size;
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) {
        const int d = part + i * kAttentionParts;
        if (d < heads.size) to[d] = narrow<T>(own.out[i] * inverse);
      }
      if (lse != nullptr && part == 0)
        lse[(at.b * heads.heads + at.h) * heads.queries + at.first + row] =
            own.sum > 0 ? own.max + log(own.sum) : own.sum;
    });
  }

  // Keys [key, key + 32): scores, weights, and their part of the output.
  template <typename Block>
  TROUPE_DEVICE void attend(Block& block, const HeadTile& at, int64_t key, int64_t limit) const {
    Shared& shared = block.shared();
    const int64_t row0 = heads.key_row(at.b, at.h) + key, col = heads.key_col(at.h);
    block.each([&](int thread, Registers&) {
      shared.k.read(thread, kThreads, k, row0, smaller(int64_t{kAttentionTile}, limit - key), col, heads.size,
                    1.0f);
      shared.v.read(thread, kThreads, v, row0, smaller(int64_t{kAttentionTile}, limit - key), col, heads.size,
                    1.0f);
    });
    block.each([&](int thread, Registers&) {
      const int row = thread / kAttentionParts;
      const int64_t seen = heads.visible(at.b, at.first + row) - key;
      TROUPE_UNROLL for (int j = 0; j < kAttentionScores; ++j) {
        const int c = thread % kAttentionParts + j * kAttentionParts;
        shared.scores[row][c] = c < seen ? shared.q.dot(row, shared.k, c, heads.size) : minus_infinity();
      }
    });
    block.each([&](int thread, Registers& own) {
      float largest = own.max;
      for (int c = 0; c < kAttentionTile; ++c)
        largest = larger(shared.scores[thread / kAttentionParts][c], largest);
      own.kept = own.sum == 0 ? 0.0f : exp(own.max - largest);
      own.max = largest;
    });
    block.each([&](int thread, Registers& own) { weigh(shared, at, key, thread, own); });
    block.each([&](int thread, Registers& own) {
      const int row = thread / kAttentionParts, part = thread % kAttentionParts;
      own.sum = own.sum * own.kept;
      for (int p = 0; p < kAttentionParts; ++p) own.sum += shared.sums[row][p];
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) own.out[i] *= own.kept;
      for (int c = 0; c < kAttentionTile; ++c) {
        const float weight = shared.scores[row][c];
        TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) own.out[i] =
            fused(weight, shared.v.x[c][part + i * kAttentionParts], own.out[i]);
      }
    });
  }

  TROUPE_DEVICE void weigh(Shared& shared, const HeadTile& at, int64_t key, int thread,
                           Registers& own) const {
    const int row = thread / kAttentionParts, part = thread % kAttentionParts;
    const int64_t seen = heads.visible(at.b, at.first + row) - key;
    float sum = 0;
    TROUPE_UNROLL for (int j = 0; j < kAttentionScores; ++j) {
      const int c = part + j * kAttentionParts;
      const float weight = c < seen ? exp(shared.scores[row][c] - own.max) : 0.0f;
      sum += weight;
      shared.scores[row][c] =
          c < seen ? weight * heads.factor(heads.weight_index(at.b, at.h, at.first + row, key + c)) : 0.0f;
    }
    shared.sums[row][part] = sum;
  }
};

}  // namespace troupe::kernels::device
