// The backward pass of attention_mma.hpp: one kernel for dq, a block 64 queries, and one for dk and dv, a
// block 64 keys, which works on transposed weights so that they are first factors as they come. Both make the
// weights again from lse.
#pragma once

#include "kernels/cuda/device/attention_mma.hpp"

namespace troupe::kernels::device {

struct AttentionGradientsMma {
  Heads heads;
  Rows<const uint16_t> q, k, v, dout;
  const float* lse = nullptr;    // (B * H, Tq)
  const float* delta = nullptr;  // (B * H, Tq)

  // The weight of a score as it met the values, and the gradient of that score. `factor` is dropout's.
  TROUPE_DEVICE void differentiate(float score, float dweight, float factor, float row_lse, float row_delta,
                                   bool seen, float& dropped, float& dscore) const {
    const float weight = seen ? exp(score * heads.scale - row_lse) : 0.0f;
    dropped = weight * factor;
    dscore = seen ? weight * (dweight * factor - row_delta) : 0.0f;
  }
};

// kKeys at a time: fewer for wider heads, whose sums take more registers.
template <int kSize>
struct AttentionQueryGradientMma : AttentionGradientsMma {
  static constexpr int kThreads = kMmaThreads;
  static constexpr int kKeys = kSize <= 64 ? 64 : 32;
  struct Shared {
    BfTile<kMmaTile, kSize> q, dout;
    BfTile<kKeys, kSize> k, v;
    WeightWords<kMmaTile> words;
  };
  struct Registers {
    uint32_t a[2][4], b[4];
    float scores[kKeys / 8][4], dweights[kKeys / 8][4];
    uint32_t dscores[kKeys / 16][4];
    float dq[kSize / 8][4];
  };

  Rows<uint16_t> dq;

  static int64_t blocks(const Heads& h) { return h.batch * h.heads * ceil_div(h.queries, kMmaTile); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const HeadTile at = HeadTile::of(block.index(), ceil_div(heads.queries, kMmaTile), heads.heads, kMmaTile);
    const int64_t rows = smaller(int64_t{kMmaTile}, heads.queries - at.first);
    const int64_t limit = heads.visible(at.b, at.first + rows - 1), col = at.h * heads.size;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers& own) {
      shared.q.read(thread, kThreads, q, at.b * heads.queries + at.first, rows, col, heads.size);
      shared.dout.read(thread, kThreads, dout, at.b * heads.queries + at.first, rows, col, heads.size);
      TROUPE_UNROLL for (int n = 0; n < kSize / 8; ++n) TROUPE_UNROLL for (int i = 0; i < 4; ++i)
          own.dq[n][i] = 0;
    });
    for (int64_t key = 0; key < limit; key += kKeys) {
      block.each([&](int thread, Registers& own) {
        const int64_t count = smaller(int64_t{kKeys}, limit - key), row = at.b * heads.keys + key;
        shared.k.read(thread, kThreads, k, row, count, col, heads.size);
        shared.v.read(thread, kThreads, v, row, count, col, heads.size);
        if (heads.rule.drops()) shared.words.draw(thread, kThreads, heads, at, at.first, key);
        TROUPE_UNROLL for (int j = 0; j < kKeys / 8; ++j) TROUPE_UNROLL for (int i = 0; i < 4; ++i)
            own.scores[j][i] = own.dweights[j][i] = 0;
      });
      multiply_rows(
          block, shared.q, shared.k, [](int thread) { return warp_row(thread); },
          [](Registers & own) -> auto& { return own.scores; });
      multiply_rows(
          block, shared.dout, shared.v, [](int thread) { return warp_row(thread); },
          [](Registers & own) -> auto& { return own.dweights; });
      block.apart([&](int thread, Registers& own) { weigh(shared.words, at, key, thread, own); });
      multiply_fragments(
          block, [](Registers & own) -> auto& { return own.dscores; }, shared.k,
          [](Registers & own) -> auto& { return own.dq; });
      block.each([](int, Registers&) {});  // all have read: the next keys may come
    }
    block.each([&](int thread, Registers& own) {
      const int row0 = warp_row(thread);
      uint16_t* to = dq.row(at.b * heads.queries + at.first + row0) + col;
      write_fragments<kSize>(own.dq, thread % kWarp, heads.size, rows - row0, to, dq.stride,
                             [&](int) { return heads.scale; });
    });
  }

  TROUPE_DEVICE void weigh(const WeightWords<kMmaTile>& words, const HeadTile& at, int64_t key, int thread,
                           Registers& own) const {
    const int lane = thread % kWarp;
    TROUPE_UNROLL for (int half = 0; half < 2; ++half) {
      const int row = warp_row(thread) + fragment_row(lane, half);
      const int64_t query = at.first + row;
      const bool inside = query < heads.queries;
      const int64_t seen = inside ? heads.visible(at.b, query) - key : 0;
      const int64_t index = (at.b * heads.heads + at.h) * heads.queries + query;
      const float row_lse = inside ? lse[index] : 0.0f, row_delta = inside ? delta[index] : 0.0f;
      TROUPE_UNROLL for (int j = 0; j < kKeys / 8; ++j) TROUPE_UNROLL for (int e = 0; e < 2; ++e) {
        const int c = 8 * j + fragment_col(lane) + e;
        float dropped = 0;
        differentiate(own.scores[j][2 * half + e], own.dweights[j][2 * half + e],
                      words.factor(heads, at, at.first, row, key, c), row_lse, row_delta, c < seen, dropped,
                      own.scores[j][2 * half + e]);
      }
    }
    pack_fragments<kKeys / 16>(own.scores, own.dscores);
  }
};

// kQueries at a time: fewer for wider heads, whose sums take more registers.
template <int kSize>
struct AttentionKeyGradientMma : AttentionGradientsMma {
  static constexpr int kThreads = kMmaThreads;
  static constexpr int kQueries = kSize <= 64 ? 64 : 32;
  struct Shared {
    BfTile<kMmaTile, kSize> k, v;
    BfTile<kQueries, kSize> q, dout;
    WeightWords<kQueries> words;
    float lse[kQueries], delta[kQueries];
  };
  struct Registers {
    uint32_t a[2][4], b[4];
    float scores[kQueries / 8][4], dweights[kQueries / 8][4];  // rows are keys, columns queries
    uint32_t weights[kQueries / 16][4], dscores[kQueries / 16][4];
    float dk[kSize / 8][4], dv[kSize / 8][4];
  };

  Rows<uint16_t> dk, dv;

  static int64_t blocks(const Heads& h) { return h.batch * h.heads * ceil_div(h.keys, kMmaTile); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const HeadTile at = HeadTile::of(block.index(), ceil_div(heads.keys, kMmaTile), heads.heads, kMmaTile);
    const int64_t rows = smaller(int64_t{kMmaTile}, heads.keys - at.first), col = at.h * heads.size;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers& own) {
      shared.k.read(thread, kThreads, k, at.b * heads.keys + at.first, rows, col, heads.size);
      shared.v.read(thread, kThreads, v, at.b * heads.keys + at.first, rows, col, heads.size);
      TROUPE_UNROLL for (int n = 0; n < kSize / 8; ++n) TROUPE_UNROLL for (int i = 0; i < 4; ++i)
          own.dk[n][i] = own.dv[n][i] = 0;
    });
    // The first tile of queries of which one sees the first key of this block.
    const int64_t begin = larger(at.first - heads.causal_offset, int64_t{0}) / kQueries * kQueries;
    for (int64_t query = begin; query < heads.queries; query += kQueries) {
      block.each([&](int thread, Registers& own) { start(shared, at, query, thread, own); });
      multiply_rows(
          block, shared.k, shared.q, [](int thread) { return warp_row(thread); },
          [](Registers & own) -> auto& { return own.scores; });
      multiply_rows(
          block, shared.v, shared.dout, [](int thread) { return warp_row(thread); },
          [](Registers & own) -> auto& { return own.dweights; });
      block.apart([&](int thread, Registers& own) { weigh(shared, at, query, thread, own); });
      multiply_fragments(
          block, [](Registers & own) -> auto& { return own.weights; }, shared.dout,
          [](Registers & own) -> auto& { return own.dv; });
      multiply_fragments(
          block, [](Registers & own) -> auto& { return own.dscores; }, shared.q,
          [](Registers & own) -> auto& { return own.dk; });
      block.each([](int, Registers&) {});  // all have read: the next queries may come
    }
    block.each([&](int thread, Registers& own) {
      const int row0 = warp_row(thread), lane = thread % kWarp;
      const int64_t row = at.b * heads.keys + at.first + row0;
      write_fragments<kSize>(own.dk, lane, heads.size, rows - row0, dk.row(row) + col, dk.stride,
                             [&](int) { return heads.scale; });
      write_fragments<kSize>(own.dv, lane, heads.size, rows - row0, dv.row(row) + col, dv.stride,
                             [](int) { return 1.0f; });
    });
  }

  TROUPE_DEVICE void start(Shared& shared, const HeadTile& at, int64_t query, int thread,
                           Registers& own) const {
    const int64_t count = smaller(int64_t{kQueries}, heads.queries - query),
                  row = at.b * heads.queries + query;
    shared.q.read(thread, kThreads, q, row, count, at.h * heads.size, heads.size);
    shared.dout.read(thread, kThreads, dout, row, count, at.h * heads.size, heads.size);
    if (heads.rule.drops()) shared.words.draw(thread, kThreads, heads, at, query, at.first);
    if (thread < kQueries) {
      const int64_t index = (at.b * heads.heads + at.h) * heads.queries + query + thread;
      shared.lse[thread] = thread < count ? lse[index] : 0.0f;
      shared.delta[thread] = thread < count ? delta[index] : 0.0f;
    }
    TROUPE_UNROLL for (int j = 0; j < kQueries / 8; ++j) TROUPE_UNROLL for (int i = 0; i < 4; ++i)
        own.scores[j][i] = own.dweights[j][i] = 0;
  }

  TROUPE_DEVICE void weigh(const Shared& shared, const HeadTile& at, int64_t query, int thread,
                           Registers& own) const {
    const int lane = thread % kWarp;
    TROUPE_UNROLL for (int j = 0; j < kQueries / 8; ++j) TROUPE_UNROLL for (int i = 0; i < 4; ++i) {
      const int key = warp_row(thread) + fragment_row(lane, i / 2);  // in the tile
      const int r = 8 * j + fragment_col(lane) + i % 2;
      const bool seen = query + r < heads.queries && at.first + key < heads.visible(at.b, query + r);
      const float factor = seen ? shared.words.factor(heads, at, query, r, at.first, key) : 0.0f;
      float dropped = 0, dscore = 0;
      differentiate(own.scores[j][i], own.dweights[j][i], factor, shared.lse[r], shared.delta[r], seen,
                    dropped, dscore);
      own.scores[j][i] = dropped;
      own.dweights[j][i] = dscore;
    }
    pack_fragments<kQueries / 16>(own.scores, own.weights);
    pack_fragments<kQueries / 16>(own.dweights, own.dscores);
  }
};

}  // namespace troupe::kernels::device
