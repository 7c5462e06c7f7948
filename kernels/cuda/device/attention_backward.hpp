// The backward pass of attention.hpp, without tensor cores: one kernel for dq, a block a tile of queries, and
// one for dk and dv, a block a tile of keys. Each makes the weights again from lse. No atomics: every sum has
// its order.
#pragma once

#include "kernels/cuda/device/attention.hpp"

namespace troupe::kernels::device {

template <typename T>
struct AttentionGradients {
  Heads heads;
  Rows<const T> q, k, v, dout;
  const float* lse = nullptr;    // (B * H, Tq)
  const float* delta = nullptr;  // (B * H, Tq)
};

// A tile of queries beside a tile of keys.
template <int kSize>
struct GradientTile {
  HeadRows<kSize> q, k, v, dout;                      // q is scaled
  float weights[kAttentionTile][kAttentionTile + 1];  // as they met the values
  float dscores[kAttentionTile][kAttentionTile + 1];

  template <typename T>
  TROUPE_DEVICE void read_queries(int thread, int threads, const AttentionGradients<T>& a, int64_t b,
                                  int64_t h, int64_t first) {
    const int64_t rows = smaller(int64_t{kAttentionTile}, a.heads.queries - first);
    const int64_t row = b * a.heads.queries + first, col = h * a.heads.size;
    q.read(thread, threads, a.q, row, rows, col, a.heads.size, a.heads.scale);
    dout.read(thread, threads, a.dout, row, rows, col, a.heads.size, 1.0f);
  }
  template <typename T>
  TROUPE_DEVICE void read_keys(int thread, int threads, const AttentionGradients<T>& a, int64_t b, int64_t h,
                               int64_t first) {
    const int64_t rows = smaller(int64_t{kAttentionTile}, a.heads.keys - first);
    const int64_t row = b * a.heads.keys + first, col = h * a.heads.size;
    k.read(thread, threads, a.k, row, rows, col, a.heads.size, 1.0f);
    v.read(thread, threads, a.v, row, rows, col, a.heads.size, 1.0f);
  }
  // Four weights of one query and the gradients of their scores, by each of 256 threads.
  template <typename T>
  TROUPE_DEVICE void differentiate(int thread, const AttentionGradients<T>& a, int64_t b, int64_t h,
                                   int64_t query, int64_t key) {
    const int row = thread / kAttentionParts;
    const int64_t i = query + row;
    const int64_t seen = i < a.heads.queries ? a.heads.visible(b, i) - key : 0;
    const int64_t at = (b * a.heads.heads + h) * a.heads.queries + i;
    TROUPE_UNROLL for (int j = 0; j < kAttentionScores; ++j) {
      const int c = thread % kAttentionParts + j * kAttentionParts;
      float dropped = 0, dscore = 0;
      if (c < seen) {
        const float weight = exp(q.dot(row, k, c, a.heads.size) - a.lse[at]);
        const float factor = a.heads.factor(a.heads.weight_index(b, h, i, key + c));
        dropped = weight * factor;
        dscore = weight * (dout.dot(row, v, c, a.heads.size) * factor - a.delta[at]);
      }
      weights[row][c] = dropped;
      dscores[row][c] = dscore;
    }
  }
};

template <typename T, int kSize>
struct AttentionQueryGradient : AttentionGradients<T> {
  static constexpr int kThreads = kAttentionTile * kAttentionParts;
  static constexpr int kOwn = kSize / kAttentionParts;
  using Shared = GradientTile<kSize>;
  struct Registers {
    float dq[kOwn];
  };

  Rows<T> dq;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const Heads& all = this->heads;
    const HeadTile at =
        HeadTile::of(block.index(), ceil_div(all.queries, kAttentionTile), all.heads, kAttentionTile);
    const int64_t rows = smaller(int64_t{kAttentionTile}, all.queries - at.first);
    const int64_t limit = all.visible(at.b, at.first + rows - 1);
    Shared& tile = block.shared();
    block.each([&](int thread, Registers& own) {
      tile.read_queries(thread, kThreads, *this, at.b, at.h, at.first);
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) own.dq[i] = 0;
    });
    for (int64_t key = 0; key < limit; key += kAttentionTile) {
      block.each([&](int thread, Registers&) { tile.read_keys(thread, kThreads, *this, at.b, at.h, key); });
      block.each(
          [&](int thread, Registers&) { tile.differentiate(thread, *this, at.b, at.h, at.first, key); });
      block.each([&](int thread, Registers& own) {
        const int row = thread / kAttentionParts, part = thread % kAttentionParts;
        for (int c = 0; c < kAttentionTile; ++c)
          TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) own.dq[i] =
              fused(tile.dscores[row][c], tile.k.x[c][part + i * kAttentionParts], own.dq[i]);
      });
    }
    block.each([&](int thread, Registers& own) {
      const int row = thread / kAttentionParts, part = thread % kAttentionParts;
      if (row >= rows) return;
      T* to = dq.row(at.b * all.queries + at.first + row) + at.h * all.size;
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) {
        const int d = part + i * kAttentionParts;
        if (d < all.size) to[d] = narrow<T>(own.dq[i] * all.scale);
      }
    });
  }
};

template <typename T, int kSize>
struct AttentionKeyGradient : AttentionGradients<T> {
  static constexpr int kThreads = kAttentionTile * kAttentionParts;
  static constexpr int kOwn = kSize / kAttentionParts;
  using Shared = GradientTile<kSize>;
  struct Registers {
    float dk[kOwn], dv[kOwn];
  };

  Rows<T> dk, dv;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const Heads& all = this->heads;
    const HeadTile at =
        HeadTile::of(block.index(), ceil_div(all.keys, kAttentionTile), all.heads, kAttentionTile);
    Shared& tile = block.shared();
    block.each([&](int thread, Registers& own) {
      tile.read_keys(thread, kThreads, *this, at.b, at.h, at.first);
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) own.dk[i] = own.dv[i] = 0;
    });
    // The first tile of queries of which one sees the first key of this block.
    const int64_t begin = larger(at.first - all.causal_offset, int64_t{0}) / kAttentionTile * kAttentionTile;
    for (int64_t query = begin; query < all.queries; query += kAttentionTile) {
      block.each(
          [&](int thread, Registers&) { tile.read_queries(thread, kThreads, *this, at.b, at.h, query); });
      block.each(
          [&](int thread, Registers&) { tile.differentiate(thread, *this, at.b, at.h, query, at.first); });
      block.each([&](int thread, Registers& own) {
        const int row = thread / kAttentionParts, part = thread % kAttentionParts;
        for (int r = 0; r < kAttentionTile; ++r) TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) {
            const int d = part + i * kAttentionParts;
            own.dk[i] = fused(tile.dscores[r][row], tile.q.x[r][d], own.dk[i]);
            own.dv[i] = fused(tile.weights[r][row], tile.dout.x[r][d], own.dv[i]);
          }
      });
    }
    block.each([&](int thread, Registers& own) {
      const int row = thread / kAttentionParts, part = thread % kAttentionParts;
      if (at.first + row >= all.keys) return;
      T* to_k = dk.row(at.b * all.keys + at.first + row) + at.h * all.size;
      T* to_v = dv.row(at.b * all.keys + at.first + row) + at.h * all.size;
      TROUPE_UNROLL for (int i = 0; i < kOwn; ++i) {
        const int d = part + i * kAttentionParts;
        if (d >= all.size) continue;
        to_k[d] = narrow<T>(own.dk[i]);
        to_v[d] = narrow<T>(own.dv[i]);
      }
    });
  }
};

}  // namespace troupe::kernels::device
