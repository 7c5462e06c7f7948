// Attention of few queries, as when tokens are generated one by one: keys and values are read once, as they
// lie, and never copied. The sums are the same, in the same order, as those of the copied rows. For sources
// compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/attention_rows.hpp"
#include "kernels/cpu/loops/transpose.hpp"

namespace troupe::kernels::TROUPE_ISA {

#if defined(__AVX2__)

constexpr int64_t kFewQueries = kTileRows;

TROUPE_INLINE bool reads_in_place(const AttentionHead& head) {
  return head.queries <= kFewQueries && head.size % kLanes == 0;
}

template <typename T>
struct RowsInPlace : Forward<T>::Queries {
  using Queries = typename Forward<T>::Queries;
  using Queries::args, Queries::head, Queries::work;

  void read() const {}
  void score(const WeightBlock& block) const {
    for (int64_t first = 0; first < block.keys; first += kLanes) {
      const void* keys[kLanes];  // beyond the last one, that one again: its scores are not looked at
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t key = smaller(block.key + first + i, head.keys - 1);
        keys[i] = row(args.k, key);
        prefetch(row(args.k, key) + args.k.next_head);
        prefetch(row(args.v, key) + args.v.next_head);
      }
      score_rows(block.rows, keys, work.scores + first);
    }
  }
  void add_values(const WeightBlock& block) const { Queries::multiply_values(block, row(args.v, block.key)); }

 private:
  const T* row(HeadRows rows, int64_t key) const {
    return static_cast<const T*>(rows.data) + key * rows.stride;
  }
  // What the next head will read comes while this one computes: there is so little to compute that memory
  // would be waited for most of the time.
  void prefetch(const T* next) const {
    for (int64_t d = 0; d < head.size; d += 64 / int64_t(sizeof(T))) __builtin_prefetch(next + d);
  }

  // scores (Rows, 16) = queries (Rows, D) times sixteen keys.
  template <int Rows>
  void score_sixteen(const void* const* keys, float* scores) const {
    Vec sum[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sum[r] = zero();
    constexpr int64_t kColumns = 4 / int64_t(sizeof(T));  // elements in one of 32 bits
    for (int64_t at = 0; at < head.size / kColumns; at += 8) {
      IVec columns[8];
      transpose_columns(keys, size_t(at) * sizeof(uint32_t), columns);
      Queries::template add_columns<Rows>(work, head.size, at, columns, sum);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) store(scores + r * kAttentionStride, sum[r]);
  }
  void score_rows(int64_t rows, const void* const* keys, float* scores) const {
    switch (rows) {
      case 1:
        return score_sixteen<1>(keys, scores);
      case 2:
        return score_sixteen<2>(keys, scores);
      case 3:
        return score_sixteen<3>(keys, scores);
      case 4:
        return score_sixteen<4>(keys, scores);
      case 5:
        return score_sixteen<5>(keys, scores);
      default:
        return score_sixteen<6>(keys, scores);
    }
  }
};

#endif

}  // namespace troupe::kernels::TROUPE_ISA
