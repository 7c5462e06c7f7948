#include "kernels/cpu/loops/attention.hpp"

#include "kernels/cpu/loops/attention_few.hpp"
#include "kernels/cpu/loops/attention_parts.hpp"
#include "kernels/cpu/loops/vec_math.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// Running softmax of one query.
struct SoftmaxRow {
  float max;
  float sum;
};

// Turns a row of scores into weights, not yet divided by the sum: exp(scale * score - max), dropped or
// scaled, zeros from `visible` to `keys`. Returns what the row's output so far must be multiplied by.
template <typename Weight>
float weigh_row(const AttentionHead& head, const uint32_t* words, float scale, const float* scores,
                int64_t visible, int64_t keys, Weight* weights, SoftmaxRow& row) {
  const int64_t whole = visible / kLanes * kLanes;
  const IVec rest = first_lanes(visible - whole);
  Vec largest = broadcast(kMinusInfinity);
  for (int64_t c = 0; c < whole; c += kLanes) largest = max(largest, load(scores + c));
  if (whole < visible) largest = max(largest, select(rest, load(scores + whole), broadcast(kMinusInfinity)));
  const float block_max = max_lanes(largest) * scale;
  const float row_max = block_max > row.max ? block_max : row.max;
  const Vec factor = broadcast(scale), shift = broadcast(-row_max);
  Vec sum = zero();
  for (int64_t c = 0; c < whole; c += kLanes) {
    const Vec weight = exp(fmadd(load(scores + c), factor, shift));
    sum = sum + weight;
    store(weights + c, weight * weight_factors(head, words, c));
  }
  int64_t c = whole;
  if (whole < visible) {
    const Vec weight = keep_where(rest, exp(fmadd(load(scores + whole), factor, shift)));
    sum = sum + weight;
    store(weights + whole, keep_where(rest, weight * weight_factors(head, words, whole)));
    c += kLanes;
  }
  for (; c < keys; c += kLanes) store(weights + c, zero());
  const float kept = row.sum == 0 ? 0 : max_lanes(exp(broadcast(row.max - row_max)));
  row.sum = row.sum * kept + sum_lanes(sum);
  row.max = row_max;
  return kept;
}

void scale_row(float* x, int64_t count, float factor) {
  const Vec f = broadcast(factor);
  for (int64_t i = 0; i < count; i += kLanes) store(x + i, load(x + i) * f);
}

// One block of keys: scores, weights, and their part of the output.
template <typename Rows>
void attend_block(const AttentionHead& head, const AttentionWork& work, const Rows& keys_values,
                  const WeightBlock& block, SoftmaxRow* rows) {
  const int64_t padded = round_up(head.size), width = round_up(block.keys);
  const uint32_t* row_words[kAttentionQueries];
  draw_words(head, block, work.words, row_words);
  keys_values.score(block);
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t seen = smaller(visible_keys(head, block.query + r) - block.key, block.keys);
    auto* const weights = keys_values.weights() + r * kAttentionStride;
    if (seen <= 0) {
      clear(weights, width);
      continue;
    }
    const float kept = weigh_row(head, row_words[r], keys_values.score_scale(),
                                 work.scores + r * kAttentionStride, seen, width, weights, rows[r]);
    if (block.key > 0) scale_row(work.out + r * padded, padded, kept);
  }
  keys_values.add_values(block);
}

template <typename T, typename Rows>
void attend(const AttentionHead& head, const AttentionForward& args, const AttentionWork& work) {
  const Rows keys_values{{head, args, work}};
  keys_values.read();
  const int64_t padded = round_up(head.size);
  for (int64_t query = 0; query < head.queries; query += head.query_block) {
    const int64_t count = smaller(head.query_block, head.queries - query);
    keys_values.read_queries(query, count);
    SoftmaxRow rows[kAttentionQueries];
    for (int64_t r = 0; r < count; ++r) rows[r] = {kMinusInfinity, 0};
    const int64_t limit = visible_keys(head, query + count - 1);
    if (limit == 0) clear(work.out, count * padded);
    for (int64_t key = 0; key < limit; key += kAttentionKeys)
      attend_block(head, work, keys_values, {query, count, key, smaller(kAttentionKeys, limit - key)}, rows);
    for (int64_t r = 0; r < count; ++r) {
      const float inverse = rows[r].sum > 0 ? 1.0f / rows[r].sum : rows[r].sum;  // 0 for no keys; keeps a NaN
      write_rows<T>(work.out + r * padded, 1, head.size, inverse, args.out, query + r);
      if (args.lse == nullptr) continue;
      args.lse[query + r] =
          rows[r].sum > 0 ? rows[r].max + max_lanes(log(broadcast(rows[r].sum))) : rows[r].sum;
    }
  }
}

template <typename T>
void forward(const AttentionHead& head, const AttentionForward& args, const AttentionWork& work) {
#if defined(__AVX2__)
  if (reads_in_place(head)) return attend<T, RowsInPlace<T>>(head, args, work);
#endif
  attend<T, typename Forward<T>::Rows>(head, args, work);
}

}  // namespace

extern const AttentionLoops attention_loops = {forward<float>, forward<uint16_t>, kMultipliesPairs};

}  // namespace troupe::kernels::TROUPE_ISA
