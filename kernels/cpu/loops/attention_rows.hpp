// How the forward loops of attention read queries, keys and values, and multiply with them: in f32, or in
// pairs of bf16. Keys and values that are read again and again are copied, the keys as columns. For sources
// compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/attention_pairs.hpp"

namespace troupe::kernels::TROUPE_ISA {

template <typename T>
struct FloatQueries : HeadPass<AttentionForward> {
  using Weight = float;

  void read_queries(int64_t query, int64_t count) const {
    read_rows<T>(args.q, query, count, head.size, head.scale, work.f32.queries);
  }
  float score_scale() const { return 1; }  // the queries are scaled
  Weight* weights() const { return work.scores; }

  // Queries (Rows, D) times the eight 32-bit columns `at` and on of sixteen keys: one element each, or two of
  // bf16.
  template <int Rows>
  TROUPE_INLINE void add_columns(const AttentionWork& work, int64_t size, int64_t at, const IVec* columns,
                                 Vec* sum) {
    constexpr int64_t kElements = 4 / int64_t(sizeof(T));
    const float* queries = work.f32.queries + at * kElements;
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c)
#pragma GCC unroll 2
      for (int64_t e = 0; e < kElements; ++e, ++queries) {
        const IVec key = kElements == 1 ? columns[c]
                         : e == 0       ? shift_left(columns[c], 16)
                                        : columns[c] & broadcast(uint32_t{0xffff0000});
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r)
          sum[r] = fmadd(broadcast(queries[r * size]), float_of_bits(key), sum[r]);
      }
  }
  // With values that lie where `values` is; D is a multiple of 16.
  void multiply_values(const WeightBlock& block, const T* values) const {
    multiply(SmallProduct<FloatBy<T>>{work.scores, kAttentionStride, 1, values, args.v.stride, work.out,
                                      head.size, block.rows, head.size, block.keys, block.key > 0});
  }
};

template <typename T>
struct FloatRows : FloatQueries<T> {
  using Base = FloatQueries<T>;
  using Base::args, Base::head, Base::work;

  void read() const {
    read_keys<T>(head, args.k, work.f32.keys);
    transpose(work.f32.keys, round_up(head.keys), round_up(head.size), work.f32.keys_t);
    read_keys<T>(head, args.v, work.f32.values);
  }
  void score(const WeightBlock& block) const {
    multiply(SmallProduct<FloatBy<float>>{
        work.f32.queries, round_up(head.size), 1, work.f32.keys_t + block.key, round_up(head.keys),
        work.scores, kAttentionStride, block.rows, round_up(block.keys), head.size, false});
  }
  void add_values(const WeightBlock& block) const {
    const int64_t padded = round_up(head.size);
    multiply(SmallProduct<FloatBy<float>>{work.scores, kAttentionStride, 1,
                                          work.f32.values + block.key * padded, padded, work.out, padded,
                                          block.rows, padded, block.keys, block.key > 0});
  }
};

#if defined(__AVX512BF16__)

struct PairQueries : HeadPass<AttentionForward> {
  using Weight = uint16_t;

  void read_queries(int64_t query, int64_t count) const {
    read_rows<uint16_t>(args.q, query, count, head.size, 1.0f, work.pairs.queries);
  }
  float score_scale() const { return head.scale; }
  Weight* weights() const { return work.pairs.weights; }

  template <int Rows>
  TROUPE_INLINE void add_columns(const AttentionWork& work, int64_t size, int64_t at, const IVec* columns,
                                 Vec* sum) {
    const uint32_t* queries = as_pairs(work.pairs.queries) + at;
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c)
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r)
        sum[r] = PairByPair::add(sum[r], PairByPair::load_left(queries + r * size / 2 + c),
                                 Bf16Pairs::pairs_of(columns[c]));
  }
  void multiply_values(const WeightBlock& block, const uint16_t* values) const {
    multiply(SmallProduct<PairByRows>{as_pairs(work.pairs.weights), kAttentionStride / 2, 1, values,
                                      args.v.stride, work.out, head.size, block.rows, head.size, block.keys,
                                      block.key > 0});
  }
};

struct PairRows : PairQueries {
  void read() const {
    const int64_t padded = round_up(head.size), keys_padded = round_up(head.keys);
    copy_keys(head, args.k, work.pairs.rows);
    pair_channels(work.pairs.rows, keys_padded, padded, work.pairs.key_channels);
    copy_keys(head, args.v, work.pairs.rows);
    pair_rows(work.pairs.rows, keys_padded, padded, work.pairs.row_pairs, padded);
  }
  void score(const WeightBlock& block) const {
    const int64_t pairs = round_up(head.size) / 2;
    multiply(SmallProduct<PairByPair>{as_pairs(work.pairs.queries), pairs, 1,
                                      work.pairs.key_channels + block.key, round_up(head.keys), work.scores,
                                      kAttentionStride, block.rows, round_up(block.keys), pairs, false});
  }
  void add_values(const WeightBlock& block) const {
    const int64_t padded = round_up(head.size);
    multiply(SmallProduct<PairByPair>{as_pairs(work.pairs.weights), kAttentionStride / 2, 1,
                                      work.pairs.row_pairs + block.key / 2 * padded, padded, work.out, padded,
                                      block.rows, padded, pairs_of(block.keys), block.key > 0});
  }
};

#endif

// The widest factors that bf16 (as its bits) and f32 are multiplied in.
template <typename T>
struct Forward {
  using Queries = FloatQueries<T>;
  using Rows = FloatRows<T>;
};
#if defined(__AVX512BF16__)
template <>
struct Forward<uint16_t> {
  using Queries = PairQueries;
  using Rows = PairRows;
};
#endif

}  // namespace troupe::kernels::TROUPE_ISA
