// What the forward and backward loops of attention share: rows into f32, transposes, random words, masks. For
// sources compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/attention.hpp"
#include "kernels/cpu/loops/dropout.hpp"
#include "kernels/cpu/loops/small_product.hpp"

namespace troupe::kernels::TROUPE_ISA {

TROUPE_INLINE int64_t round_up(int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}
TROUPE_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// What a pass over one head is given, forward or backward.
template <typename Args>
struct HeadPass {
  const AttentionHead& head;
  const Args& args;
  const AttentionWork& work;
};

// How many keys query i sees.
TROUPE_INLINE int64_t visible_keys(const AttentionHead& head, int64_t i) {
  const int64_t n = smaller(head.length, i + head.causal_offset + 1);
  return n < 0 ? 0 : n;
}

constexpr int64_t kRowsAhead = 12;

// to (rows, Dp) = from (rows, D) * scale, the columns from D on zero.
template <typename T, typename To>
static void read_rows(HeadRows from, int64_t first, int64_t rows, int64_t size, float scale, To* to) {
  const int64_t padded = round_up(size), whole = size / kLanes * kLanes;
  const Vec factor = broadcast(scale);
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = static_cast<const T*>(from.data) + (first + r) * from.stride;
    To* y = to + r * padded;
    __builtin_prefetch(x + kRowsAhead * from.stride);  // too far apart for the hardware to guess
    for (int64_t d = 0; d < whole; d += kLanes) store(y + d, load(x + d) * factor);
    if (whole < size) store(y + whole, load(x + whole, size - whole) * factor);
  }
}

template <typename T>
static void clear(T* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, zero());
}

// The keys (or values) of a head as f32 (Tp, Dp), the rows from Tk on zero.
template <typename T>
static void read_keys(const AttentionHead& head, HeadRows from, float* to) {
  const int64_t padded = round_up(head.size);
  read_rows<T>(from, 0, head.keys, head.size, 1.0f, to);
  clear(to + head.keys * padded, (round_up(head.keys) - head.keys) * padded);
}

// to (cols, rows) = from (rows, cols)^T, both multiples of 16.
static void transpose(const float* from, int64_t rows, int64_t cols, float* to) {
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < cols; c += 4) {
      const float* x = from + r * cols + c;
      __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + cols), d = _mm_loadu_ps(x + 2 * cols),
             e = _mm_loadu_ps(x + 3 * cols);
      _MM_TRANSPOSE4_PS(a, b, d, e);
      float* y = to + c * rows + r;
      _mm_storeu_ps(y, a);
      _mm_storeu_ps(y + rows, b);
      _mm_storeu_ps(y + 2 * rows, d);
      _mm_storeu_ps(y + 3 * rows, e);
    }
}

// to (rows, D) = from (rows, Dp) * scale.
template <typename T>
static void write_rows(const float* from, int64_t rows, int64_t size, float scale, HeadRowsOut to,
                       int64_t first) {
  const int64_t padded = round_up(size), whole = size / kLanes * kLanes;
  const Vec factor = broadcast(scale);
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = from + r * padded;
    T* y = static_cast<T*>(to.data) + (first + r) * to.stride;
    for (int64_t d = 0; d < whole; d += kLanes) store(y + d, load(x + d) * factor);
    if (whole < size) store(y + whole, load(x + whole) * factor, size - whole);
  }
}

// A block of the weights: queries [query, query + rows), keys [key, key + keys).
struct WeightBlock {
  int64_t query, rows;
  int64_t key, keys;
};

// Points row_words[r] at the random words of the block's row r. Does nothing without dropout.
static void draw_words(const AttentionHead& head, const WeightBlock& block, uint32_t* words,
                       const uint32_t** row_words) {
  if (head.dropout.threshold == 0) return;
  const uint64_t first = head.first_weight + uint64_t(block.query * head.keys + block.key);
  if (head.keys <= kAttentionKeys) {  // the rows of a block follow one another
    const uint32_t* start = random_words(head.dropout.key, first, block.rows * head.keys, words);
    for (int64_t r = 0; r < block.rows; ++r) row_words[r] = start + r * head.keys;
    return;
  }
  for (int64_t r = 0; r < block.rows; ++r)
    row_words[r] = random_words(head.dropout.key, first + uint64_t(r * head.keys), block.keys,
                                words + r * (kAttentionKeys + 128));
}

// The sixteen dropout factors from column c of a row on; 1 without dropout.
TROUPE_INLINE Vec weight_factors(const AttentionHead& head, const uint32_t* words, int64_t c) {
  return head.dropout.threshold == 0 ? broadcast(1.0f) : dropout_factors(head.dropout, words + c);
}

}  // namespace troupe::kernels::TROUPE_ISA
