// Attention of few queries, as when tokens are generated one by one: keys and values are read once, as they
// lie, and never copied. The sums are the same, in the same order, as those of the copied rows. For sources
// compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/attention_parts.hpp"
#include "kernels/cpu/loops/transpose.hpp"

namespace troupe::kernels::TROUPE_ISA {

#if defined(__AVX2__)

constexpr int64_t kFewQueries = kTileRows;

TROUPE_INLINE bool reads_in_place(const AttentionHead& head) {
  return head.queries <= kFewQueries && head.size % kLanes == 0;
}

// scores (Rows, 16) = queries (Rows, size) times sixteen keys.
template <int Rows, typename T>
TROUPE_INLINE void score_sixteen(const float* queries, int64_t size, const void* const* keys, float* scores) {
  Vec sum[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) sum[r] = zero();
  const auto add = [&](int64_t d, IVec column) {
    const Vec key = float_of_bits(column);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sum[r] = fmadd(broadcast(queries[r * size + d]), key, sum[r]);
  };
  constexpr int64_t kColumns = 32 / sizeof(T);
  for (int64_t d = 0; d < size; d += kColumns) {
    IVec columns[8];
    transpose_columns(keys, size_t(d) * sizeof(T), columns);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c)
      if constexpr (sizeof(T) == 4) {
        add(d + c, columns[c]);
      } else {  // two elements in one
        add(d + 2 * c, shift_left(columns[c], 16));
        add(d + 2 * c + 1, columns[c] & broadcast(uint32_t{0xffff0000}));
      }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) store(scores + r * kAttentionStride, sum[r]);
}

template <typename T>
struct RowsInPlace {
  const AttentionHead& head;
  const AttentionForward& args;
  const AttentionWork& work;

  const T* row(HeadRows rows, int64_t key) const {
    return static_cast<const T*>(rows.data) + key * rows.stride;
  }
  // What the next head will read comes while this one computes: there is so little to compute that memory
  // would be waited for most of the time.
  static void prefetch(const T* next, int64_t size) {
    for (int64_t d = 0; d < size; d += 64 / int64_t(sizeof(T))) __builtin_prefetch(next + d);
  }
  void score(const WeightBlock& block, int64_t size) const {
    for (int64_t first = 0; first < block.keys; first += kLanes) {
      const void* keys[kLanes];  // beyond the last one, that one again: its scores are not looked at
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t key = smaller(block.key + first + i, head.keys - 1);
        keys[i] = row(args.k, key);
        prefetch(row(args.k, key) + args.k.next_head, size);
        prefetch(row(args.v, key) + args.v.next_head, size);
      }
      score_rows(block.rows, size, keys, work.scores + first);
    }
  }
  void add_values(const WeightBlock& block) const {
    multiply(SmallProduct<T>{work.scores, kAttentionStride, 1, row(args.v, block.key), args.v.stride,
                             work.out, head.size, block.rows, head.size, block.keys, block.key > 0});
  }

 private:
  void score_rows(int64_t rows, int64_t size, const void* const* keys, float* scores) const {
    switch (rows) {
      case 1:
        return score_sixteen<1, T>(work.queries, size, keys, scores);
      case 2:
        return score_sixteen<2, T>(work.queries, size, keys, scores);
      case 3:
        return score_sixteen<3, T>(work.queries, size, keys, scores);
      case 4:
        return score_sixteen<4, T>(work.queries, size, keys, scores);
      case 5:
        return score_sixteen<5, T>(work.queries, size, keys, scores);
      default:
        return score_sixteen<6, T>(work.queries, size, keys, scores);
    }
  }
};

#endif

}  // namespace troupe::kernels::TROUPE_ISA
