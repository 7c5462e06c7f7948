#include "kernels/cpu/loops/attention.hpp"
#include "kernels/cpu/loops/attention_parts.hpp"
#include "kernels/cpu/loops/vec_math.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

// A row of scores becomes the weights as they met the values, and a row of their gradients that of the
// scores; zeros from `visible` to `keys`. `delta` is the product of the row of dout with that of out.
void differentiate_row(const AttentionHead& head, const uint32_t* words, float lse, float delta,
                       int64_t visible, int64_t keys, float* scores, float* dscores) {
  for (int64_t c = 0; c < visible; c += kLanes) {
    const Vec weight = exp(load(scores + c) - broadcast(lse));
    const Vec factor = weight_factors(head, words, c);
    Vec dropped = weight * factor;
    Vec dscore = weight * (load(dscores + c) * factor - broadcast(delta));
    if (c + kLanes > visible) {
      const IVec rest = first_lanes(visible - c);
      dropped = keep_where(rest, dropped);
      dscore = keep_where(rest, dscore);
    }
    store(scores + c, dropped);
    store(dscores + c, dscore);
  }
  for (int64_t c = round_up(visible); c < keys; c += kLanes) {
    store(scores + c, zero());
    store(dscores + c, zero());
  }
}

float dot(const float* x, const float* y, int64_t count) {
  Vec sum = zero();
  for (int64_t i = 0; i < count; i += kLanes) sum = fmadd(load(x + i), load(y + i), sum);
  return sum_lanes(sum);
}

// One block of keys: its weights again, then their part of dq, dk and dv.
void differentiate_block(const AttentionHead& head, const AttentionWork& work, const WeightBlock& block,
                         const float* lse, const float* delta) {
  const int64_t padded = round_up(head.size), keys_padded = round_up(head.keys), width = round_up(block.keys);
  const uint32_t* row_words[kAttentionQueries];
  draw_words(head, block, work.words, row_words);
  multiply({work.queries, padded, 1, work.keys_t + block.key, keys_padded, work.scores, kAttentionStride,
            block.rows, width, head.size, false});
  multiply({work.dout, padded, 1, work.values_t + block.key, keys_padded, work.dscores, kAttentionStride,
            block.rows, width, head.size, false});
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t seen = smaller(visible_keys(head, block.query + r) - block.key, block.keys);
    differentiate_row(head, row_words[r], lse[r], delta[r], seen < 0 ? 0 : seen, width,
                      work.scores + r * kAttentionStride, work.dscores + r * kAttentionStride);
  }
  multiply({work.scores, 1, kAttentionStride, work.dout, padded, work.dvalues + block.key * padded, padded,
            block.keys, padded, block.rows, true});
  multiply({work.dscores, 1, kAttentionStride, work.queries, padded, work.dkeys + block.key * padded, padded,
            block.keys, padded, block.rows, true});
  multiply({work.dscores, kAttentionStride, 1, work.keys + block.key * padded, padded, work.out, padded,
            block.rows, padded, block.keys, block.key > 0});
}

template <typename T>
void backward(const AttentionHead& head, const AttentionBackward& args, const AttentionWork& work) {
  const int64_t padded = round_up(head.size), keys_padded = round_up(head.keys);
  read_keys<T>(head, args.v, work.values);
  transpose(work.values, keys_padded, padded, work.values_t);
  read_keys<T>(head, args.k, work.keys);
  transpose(work.keys, keys_padded, padded, work.keys_t);
  clear(work.dkeys, keys_padded * padded);
  clear(work.dvalues, keys_padded * padded);
  for (int64_t query = 0; query < head.queries; query += head.query_block) {
    const int64_t count = smaller(head.query_block, head.queries - query);
    float delta[kAttentionQueries];
    read_rows<T>(args.dout, query, count, head.size, 1.0f, work.dout);
    read_rows<T>(args.out, query, count, head.size, 1.0f, work.out);
    for (int64_t r = 0; r < count; ++r) delta[r] = dot(work.dout + r * padded, work.out + r * padded, padded);
    read_rows<T>(args.q, query, count, head.size, head.scale, work.queries);
    const int64_t limit = visible_keys(head, query + count - 1);
    if (limit == 0) clear(work.out, count * padded);
    for (int64_t key = 0; key < limit; key += kAttentionKeys)
      differentiate_block(head, work, {query, count, key, smaller(kAttentionKeys, limit - key)},
                          args.lse + query, delta);
    write_rows<T>(work.out, count, head.size, head.scale, args.dq, query);
  }
  write_rows<T>(work.dkeys, head.keys, head.size, 1.0f, args.dk, 0);
  write_rows<T>(work.dvalues, head.keys, head.size, 1.0f, args.dv, 0);
}

}  // namespace

extern const AttentionBackwardLoops attention_backward_loops = {backward<float>, backward<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
