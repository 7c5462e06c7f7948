#include "kernels/cpu/loops/attention.hpp"
#include "kernels/cpu/loops/attention_pairs.hpp"
#include "kernels/cpu/loops/vec_math.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

// A row of scores becomes the weights as they met the values, and a row of their gradients that of the scaled
// scores; zeros from `visible` to `keys`. `delta` is the product of the row of dout with that of out.
template <typename Weight>
void differentiate_row(const AttentionHead& head, const uint32_t* words, float scale, float lse, float delta,
                       int64_t visible, int64_t keys, const float* scores, const float* dweights,
                       Weight* weights, Weight* dscores) {
  for (int64_t c = 0; c < visible; c += kLanes) {
    const Vec weight = exp(fmadd(load(scores + c), broadcast(scale), broadcast(-lse)));
    const Vec factor = weight_factors(head, words, c);
    Vec dropped = weight * factor;
    Vec dscore = weight * (load(dweights + c) * factor - broadcast(delta));
    if (c + kLanes > visible) {
      const IVec rest = first_lanes(visible - c);
      dropped = keep_where(rest, dropped);
      dscore = keep_where(rest, dscore);
    }
    store(weights + c, dropped);
    store(dscores + c, dscore);
  }
  for (int64_t c = round_up(visible); c < keys; c += kLanes) {
    store(weights + c, zero());
    store(dscores + c, zero());
  }
}

float dot(const float* x, const float* y, int64_t count) {
  Vec sum = zero();
  for (int64_t i = 0; i < count; i += kLanes) sum = fmadd(load(x + i), load(y + i), sum);
  return sum_lanes(sum);
}

// Products in f32.
template <typename T>
struct FloatRows : HeadPass<AttentionBackward> {
  int64_t padded = round_up(head.size), keys_padded = round_up(head.keys);

  void read() const {
    read_keys<T>(head, args.v, work.f32.values);
    transpose(work.f32.values, keys_padded, padded, work.f32.values_t);
    read_keys<T>(head, args.k, work.f32.keys);
    transpose(work.f32.keys, keys_padded, padded, work.f32.keys_t);
  }
  void read_queries(int64_t query, int64_t count) const {
    read_rows<T>(args.q, query, count, head.size, head.scale, work.f32.queries);
  }
  float score_scale() const { return 1; }  // the queries are scaled, as dkeys will be
  float dkeys_scale() const { return 1; }
  float* weights() const { return work.scores; }
  float* dscores() const { return work.dscores; }
  void score(const WeightBlock& block) const {
    const int64_t width = round_up(block.keys);
    multiply(SmallProduct<FloatBy<float>>{work.f32.queries, padded, 1, work.f32.keys_t + block.key,
                                          keys_padded, work.scores, kAttentionStride, block.rows, width,
                                          head.size, false});
    multiply(SmallProduct<FloatBy<float>>{work.dout, padded, 1, work.f32.values_t + block.key, keys_padded,
                                          work.dscores, kAttentionStride, block.rows, width, head.size,
                                          false});
  }
  void add(const WeightBlock& block) const {
    multiply(SmallProduct<FloatBy<float>>{work.scores, 1, kAttentionStride, work.dout, padded,
                                          work.dvalues + block.key * padded, padded, block.keys, padded,
                                          block.rows, true});
    multiply(SmallProduct<FloatBy<float>>{work.dscores, 1, kAttentionStride, work.f32.queries, padded,
                                          work.dkeys + block.key * padded, padded, block.keys, padded,
                                          block.rows, true});
    multiply(SmallProduct<FloatBy<float>>{work.dscores, kAttentionStride, 1,
                                          work.f32.keys + block.key * padded, padded, work.out, padded,
                                          block.rows, padded, block.keys, block.key > 0});
  }
};

#if defined(__AVX512BF16__)

// Products of pairs of bf16.
struct PairRows : HeadPass<AttentionBackward> {
  int64_t padded = round_up(head.size), keys_padded = round_up(head.keys);

  void read() const {
    copy_keys(head, args.v, work.pairs.rows);
    pair_channels(work.pairs.rows, keys_padded, padded, work.pairs.value_channels);
    copy_keys(head, args.k, work.pairs.rows);
    pair_channels(work.pairs.rows, keys_padded, padded, work.pairs.key_channels);
    pair_rows(work.pairs.rows, keys_padded, padded, work.pairs.row_pairs, padded);
  }
  void read_queries(int64_t query, int64_t count) const {
    read_rows<uint16_t>(args.q, query, count, head.size, 1.0f, work.pairs.queries);
    pair_rows(work.pairs.queries, count, padded, work.pairs.query_pairs, padded);
    read_rows<uint16_t>(args.dout, query, count, head.size, 1.0f, work.pairs.dout);
    pair_rows(work.pairs.dout, count, padded, work.pairs.dout_pairs, padded);
  }
  float score_scale() const { return head.scale; }
  float dkeys_scale() const { return head.scale; }
  uint16_t* weights() const { return work.pairs.weights; }
  uint16_t* dscores() const { return work.pairs.dscores; }
  void score(const WeightBlock& block) const {
    const int64_t width = round_up(block.keys);
    multiply(SmallProduct<PairByPair>{as_pairs(work.pairs.queries), padded / 2, 1,
                                      work.pairs.key_channels + block.key, keys_padded, work.scores,
                                      kAttentionStride, block.rows, width, padded / 2, false});
    multiply(SmallProduct<PairByPair>{as_pairs(work.pairs.dout), padded / 2, 1,
                                      work.pairs.value_channels + block.key, keys_padded, work.dscores,
                                      kAttentionStride, block.rows, width, padded / 2, false});
  }
  void add(const WeightBlock& block) const {
    const int64_t width = round_up(block.keys), row_pairs = pairs_of(block.rows);
    pair_rows(work.pairs.weights, block.rows, kAttentionStride, work.pairs.weight_pairs, width);
    pair_rows(work.pairs.dscores, block.rows, kAttentionStride, work.pairs.dscore_pairs, width);
    multiply(SmallProduct<PairByPair>{work.pairs.weight_pairs, 1, kAttentionStride, work.pairs.dout_pairs,
                                      padded, work.dvalues + block.key * padded, padded, block.keys, padded,
                                      row_pairs, true});
    multiply(SmallProduct<PairByPair>{work.pairs.dscore_pairs, 1, kAttentionStride, work.pairs.query_pairs,
                                      padded, work.dkeys + block.key * padded, padded, block.keys, padded,
                                      row_pairs, true});
    multiply(SmallProduct<PairByPair>{as_pairs(work.pairs.dscores), kAttentionStride / 2, 1,
                                      work.pairs.row_pairs + block.key / 2 * padded, padded, work.out, padded,
                                      block.rows, padded, pairs_of(block.keys), block.key > 0});
  }
};

#endif

// One block of keys: its weights again, then their part of dq, dk and dv.
template <typename Rows>
void differentiate_block(const AttentionHead& head, const AttentionWork& work, const Rows& rows,
                         const WeightBlock& block, const float* lse, const float* delta) {
  const uint32_t* row_words[kAttentionQueries];
  draw_words(head, block, work.words, row_words);
  rows.score(block);
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t seen = smaller(visible_keys(head, block.query + r) - block.key, block.keys);
    const int64_t row = r * kAttentionStride;
    differentiate_row(head, row_words[r], rows.score_scale(), lse[r], delta[r], seen < 0 ? 0 : seen,
                      round_up(block.keys), work.scores + row, work.dscores + row, rows.weights() + row,
                      rows.dscores() + row);
  }
  rows.add(block);
}

// The widest factors that bf16 (as its bits) and f32 are multiplied in.
template <typename T>
struct Backward {
  using Rows = FloatRows<T>;
};
#if defined(__AVX512BF16__)
template <>
struct Backward<uint16_t> {
  using Rows = PairRows;
};
#endif

template <typename T>
void backward(const AttentionHead& head, const AttentionBackward& args, const AttentionWork& work) {
  const typename Backward<T>::Rows rows{{head, args, work}};
  rows.read();
  const int64_t padded = round_up(head.size), keys_padded = round_up(head.keys);
  clear(work.dkeys, keys_padded * padded);
  clear(work.dvalues, keys_padded * padded);
  for (int64_t query = 0; query < head.queries; query += head.query_block) {
    const int64_t count = smaller(head.query_block, head.queries - query);
    float delta[kAttentionQueries];
    read_rows<T>(args.dout, query, count, head.size, 1.0f, work.dout);
    read_rows<T>(args.out, query, count, head.size, 1.0f, work.out);
    for (int64_t r = 0; r < count; ++r) delta[r] = dot(work.dout + r * padded, work.out + r * padded, padded);
    rows.read_queries(query, count);
    const int64_t limit = visible_keys(head, query + count - 1);
    if (limit == 0) clear(work.out, count * padded);
    for (int64_t key = 0; key < limit; key += kAttentionKeys)
      differentiate_block(head, work, rows, {query, count, key, smaller(kAttentionKeys, limit - key)},
                          args.lse + query, delta);
    write_rows<T>(work.out, count, head.size, head.scale, args.dq, query);
  }
  write_rows<T>(work.dkeys, head.keys, head.size, rows.dkeys_scale(), args.dk, 0);
  write_rows<T>(work.dvalues, head.keys, head.size, 1.0f, args.dv, 0);
}

}  // namespace

extern const AttentionBackwardLoops attention_backward_loops = {backward<float>, backward<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
