// Attention in bf16 on tensor cores, for heads of a multiple of 16 channels up to kSize (64 or 128): softmax
// over blocks of 64 keys with a running maximum (Dao 2023, "FlashAttention-2"). A block takes 64 queries of
// one head, a warp sixteen. Weights are rounded to bf16 before they meet the values; sums are f32. No
// atomics.
#pragma once

#include "kernels/cuda/device/attention_parts.hpp"
#include "kernels/cuda/device/mma.hpp"

namespace troupe::kernels::device {

constexpr int kMmaTile = 64;  // rows of a block: four warps of sixteen
constexpr int kMmaThreads = kMmaTile / 16 * kWarp;
TROUPE_DEVICE int warp_row(int thread) {  // the first of a warp's rows
  return thread / kWarp * 16;
}

// The random words of a tile of weights, a row a query.
template <int kQueries>
struct WeightWords {
  uint32_t x[kQueries][words_room(kMmaTile)];

  TROUPE_DEVICE void draw(int thread, int threads, const Heads& heads, const HeadTile& head, int64_t query,
                          int64_t key) {
    constexpr int kCounters = words_room(kMmaTile) / 4;  // two runs of sixteen counters cover any 64 elements
    for (int i = thread; i < kQueries * kCounters; i += threads) {
      const int r = i / kCounters, c = i % kCounters;
      const uint64_t first = heads.weight_index(head.b, head.h, query + r, key) & ~uint64_t{63};
      const auto four = philox_from(heads.rule.key)(first / 4 + uint64_t(c));
      TROUPE_UNROLL for (int w = 0; w < 4; ++w) x[r][c / 16 * 64 + c % 16 + 16 * w] = four[size_t(w)];
    }
  }
  TROUPE_DEVICE float factor(const Heads& heads, const HeadTile& head, int64_t query, int row, int64_t key,
                             int col) const {
    if (!heads.rule.drops()) return heads.rule.scale;
    const uint64_t first = heads.weight_index(head.b, head.h, query + row, key);
    return heads.rule.factor(x[row][(first & 63) + uint64_t(col)]);
  }
};

// Writes a warp's results (16, kSize), each times factor(half), as rows of bf16.
template <int kSize, typename FactorOf>
TROUPE_DEVICE void write_fragments(const float (&c)[kSize / 8][4], int lane, int size, int64_t rows,
                                   uint16_t* to, int64_t stride, FactorOf&& factor) {
  TROUPE_UNROLL for (int half = 0; half < 2; ++half) {
    const int row = fragment_row(lane, half);
    if (row >= rows) continue;
    const float f = factor(half);
    TROUPE_UNROLL for (int n = 0; n < kSize / 8; ++n) {
      const int d = 8 * n + fragment_col(lane);
      if (d < size)
        piece_at<Pair>(to + row * stride + d) = {
            {narrow<uint16_t>(c[n][2 * half] * f), narrow<uint16_t>(c[n][2 * half + 1] * f)}};
    }
  }
}

template <int kSize>
struct AttentionForwardMma {
  static constexpr int kThreads = kMmaThreads;
  struct Shared {
    BfTile<kMmaTile, kSize> q, k, v;
    WeightWords<kMmaTile> words;
  };
  struct Registers {
    uint32_t a[2][4], b[4];
    float scores[kMmaTile / 8][4];
    uint32_t weights[kMmaTile / 16][4];
    float out[kSize / 8][4];
    float max[2], sum[2], largest[2];  // of rows g and g + 8; sum: this lane's part
  };

  Heads heads;
  Rows<const uint16_t> q, k, v;
  Rows<uint16_t> out;
  float* lse = nullptr;  // (B * H, Tq), or null

  static int64_t blocks(const Heads& h) { return h.batch * h.heads * ceil_div(h.queries, kMmaTile); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const HeadTile at = HeadTile::of(block.index(), ceil_div(heads.queries, kMmaTile), heads.heads, kMmaTile);
    const int64_t rows = smaller(int64_t{kMmaTile}, heads.queries - at.first);
    const int64_t limit = heads.visible(at.b, at.first + rows - 1), col = at.h * heads.size;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers& own) {
      shared.q.read(thread, kThreads, q, at.b * heads.queries + at.first, rows, col, heads.size);
      TROUPE_UNROLL for (int n = 0; n < kSize / 8; ++n) TROUPE_UNROLL for (int i = 0; i < 4; ++i)
          own.out[n][i] = 0;
      own.max[0] = own.max[1] = minus_infinity();
      own.sum[0] = own.sum[1] = 0;
    });
    for (int64_t key = 0; key < limit; key += kMmaTile) {
      block.each([&](int thread, Registers&) {
        const int64_t count = smaller(int64_t{kMmaTile}, limit - key), row = heads.key_row(at.b, at.h) + key;
        shared.k.read(thread, kThreads, k, row, count, heads.key_col(at.h), heads.size);
        shared.v.read(thread, kThreads, v, row, count, heads.key_col(at.h), heads.size);
        if (heads.rule.drops()) shared.words.draw(thread, kThreads, heads, at, at.first, key);
      });
      attend(block, at, key);
      block.each([](int, Registers&) {});  // all have read: the next keys may come
    }
    block.quad_sum([](int, Registers& own) -> float& { return own.sum[0]; });
    block.quad_sum([](int, Registers& own) -> float& { return own.sum[1]; });
    block.each([&](int thread, Registers& own) { write(at, rows, thread, own); });
  }

  template <typename Block>
  TROUPE_DEVICE void attend(Block& block, const HeadTile& at, int64_t key) const {
    Shared& shared = block.shared();
    block.apart([&](int, Registers& own) {
      TROUPE_UNROLL for (int j = 0; j < kMmaTile / 8; ++j) TROUPE_UNROLL for (int i = 0; i < 4; ++i)
          own.scores[j][i] = 0;
    });
    multiply_rows(
        block, shared.q, shared.k, [](int thread) { return warp_row(thread); },
        [](Registers & own) -> auto& { return own.scores; });
    block.apart([&](int thread, Registers& own) { mask(at, key, thread, own); });
    block.quad_max([](int, Registers& own) -> float& { return own.largest[0]; });
    block.quad_max([](int, Registers& own) -> float& { return own.largest[1]; });
    block.apart([&](int thread, Registers& own) { weigh(shared.words, at, key, thread, own); });
    multiply_fragments(
        block, [](Registers & own) -> auto& { return own.weights; }, shared.v,
        [](Registers & own) -> auto& { return own.out; });
  }

  // Scales the scores; those of keys that a query does not see become -infinity.
  TROUPE_DEVICE void mask(const HeadTile& at, int64_t key, int thread, Registers& own) const {
    const int lane = thread % kWarp;
    TROUPE_UNROLL for (int half = 0; half < 2; ++half) {
      const int64_t query = at.first + warp_row(thread) + fragment_row(lane, half);
      const int64_t seen = query < heads.queries ? heads.visible(at.b, query) - key : 0;
      own.largest[half] = own.max[half];
      TROUPE_UNROLL for (int j = 0; j < kMmaTile / 8; ++j) TROUPE_UNROLL for (int e = 0; e < 2; ++e) {
        float& score = own.scores[j][2 * half + e];
        score = 8 * j + fragment_col(lane) + e < seen ? score * heads.scale : minus_infinity();
        own.largest[half] = larger(score, own.largest[half]);
      }
    }
  }

  TROUPE_DEVICE void weigh(const WeightWords<kMmaTile>& words, const HeadTile& at, int64_t key, int thread,
                           Registers& own) const {
    const int lane = thread % kWarp;
    TROUPE_UNROLL for (int half = 0; half < 2; ++half) {
      const int row = warp_row(thread) + fragment_row(lane, half);
      const bool none = own.largest[half] == minus_infinity();  // nothing seen so far
      const float kept = own.max[half] == minus_infinity() ? 0.0f : exp(own.max[half] - own.largest[half]);
      own.sum[half] *= kept;
      own.max[half] = own.largest[half];
      TROUPE_UNROLL for (int n = 0; n < kSize / 8; ++n) TROUPE_UNROLL for (int e = 0; e < 2; ++e)
          own.out[n][2 * half + e] *= kept;
      TROUPE_UNROLL for (int j = 0; j < kMmaTile / 8; ++j) TROUPE_UNROLL for (int e = 0; e < 2; ++e) {
        float& score = own.scores[j][2 * half + e];
        const float weight =
            none && score == score ? 0.0f : exp(score - own.largest[half]);  // 0 for -infinity
        own.sum[half] += weight;
        score = weight * words.factor(heads, at, at.first, row, key, 8 * j + fragment_col(lane) + e);
      }
    }
    pack_fragments<kMmaTile / 16>(own.scores, own.weights);
  }

  TROUPE_DEVICE void write(const HeadTile& at, int64_t rows, int thread, Registers& own) const {
    const int lane = thread % kWarp, row0 = warp_row(thread);
    uint16_t* to = out.row(at.b * heads.queries + at.first + row0) + at.h * heads.size;
    write_fragments<kSize>(own.out, lane, heads.size, rows - row0, to, out.stride, [&](int half) {
      return own.sum[half] > 0 ? 1.0f / own.sum[half] : own.sum[half];  // 0 for no keys; keeps a NaN
    });
    TROUPE_UNROLL for (int half = 0; half < 2; ++half) {
      const int row = row0 + fragment_row(lane, half);
      if (lse == nullptr || lane % 4 != 0 || row >= rows) continue;
      lse[(at.b * heads.heads + at.h) * heads.queries + at.first + row] =
          own.sum[half] > 0 ? own.max[half] + log(own.sum[half]) : own.sum[half];
    }
  }
};

}  // namespace troupe::kernels::device
