// Loops of kernels/cpu/attention.cpp: one head of one sequence at a time, blocked over queries and keys with
// a running softmax (Dao et al. 2022, "FlashAttention"). A query's result depends on its own row and the keys
// it sees alone, not on how many queries there are: sums over D run in order, keys are cut at multiples of
// kAttentionKeys, and the sum of exponentials is one fixed tree.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

constexpr int64_t kAttentionQueries = 48;  // rows of a block of weights, at most
constexpr int64_t kAttentionKeys = 128;    // its columns, at most
constexpr int64_t kAttentionStride =
    144;  // of a block of scores: not a power of two, which would crowd a few cache sets

struct AttentionHead {
  int64_t queries, keys;  // Tq, Tk
  int64_t size;           // D
  int64_t length;         // keys at and beyond it are padding
  int64_t causal_offset;  // query i sees keys <= i + causal_offset
  int64_t query_block;    // 1..kAttentionQueries
  float scale;            // 1 / sqrt(D)
  DropoutMask dropout;
  uint64_t first_weight;  // dropout index of weight (0, 0)
};

struct HeadRows {  // T x D elements of the compute type
  const void* data;
  int64_t stride;
  int64_t next_head;  // how many elements further the next head's lie
};
struct HeadRowsOut {
  void* data;
  int64_t stride;
};

// Scratch of one head; Dp and Tp are D and Tk rounded up to 16. What only the backward pass or only products
// of pairs use is null elsewhere.
struct AttentionWork {
  float* out;       // (kAttentionQueries, Dp): of the output, or of dq
  float* scores;    // (kAttentionQueries, kAttentionStride)
  uint32_t* words;  // kAttentionQueries * (kAttentionKeys + 128): random words of the weights
  float* dscores;   // (kAttentionQueries, kAttentionStride); this and the next: backward
  float* dout;      // (kAttentionQueries, Dp)
  float* dkeys;     // (Tp, Dp)
  float* dvalues;   // (Tp, Dp)

  struct F32 {
    float* keys;      // (Tp, Dp)
    float* keys_t;    // (Dp, Tp)
    float* values;    // (Tp, Dp)
    float* queries;   // (kAttentionQueries, Dp), scaled
    float* values_t;  // (Dp, Tp); backward
  } f32;

  struct Pairs {               // of bf16
    uint16_t* rows;            // (Tp, Dp): keys or values as they are
    uint32_t* key_channels;    // (Dp / 2, Tp): keys by pairs of channels
    uint32_t* value_channels;  // the same of values; backward
    uint32_t* row_pairs;       // (Tp / 2, Dp): values by pairs of them; keys in the backward pass
    uint16_t* queries;         // (kAttentionQueries, Dp)
    uint16_t* weights;         // (kAttentionQueries, kAttentionStride)
    uint16_t* dout;            // (kAttentionQueries, Dp); this and the next: backward
    uint16_t* dscores;         // (kAttentionQueries, kAttentionStride)
    uint32_t* query_pairs;     // (kAttentionQueries / 2, Dp): by pairs of queries, as the next
    uint32_t* dout_pairs;      // (kAttentionQueries / 2, Dp)
    uint32_t* weight_pairs;    // (kAttentionQueries / 2, kAttentionStride)
    uint32_t* dscore_pairs;    // (kAttentionQueries / 2, kAttentionStride)
  } pairs;
};

struct AttentionForward {
  HeadRows q, k, v;
  HeadRowsOut out;
  float* lse;  // (Tq), or null
};
struct AttentionBackward {
  HeadRows q, k, v, out, dout;
  const float* lse;
  HeadRowsOut dq, dk, dv;
};

// With `pairs` bf16 is multiplied by bf16, the weights and their gradients rounded to it; without, in f32.
using AttentionForwardLoop = void (*)(const AttentionHead&, const AttentionForward&, const AttentionWork&);
using AttentionBackwardLoop = void (*)(const AttentionHead&, const AttentionBackward&, const AttentionWork&);
struct AttentionLoops {
  AttentionForwardLoop forward_f32, forward_bf16;
  bool pairs;
};
struct AttentionBackwardLoops {
  AttentionBackwardLoop backward_f32, backward_bf16;
};

TROUPE_DECLARE_LOOPS(AttentionLoops, attention_loops)
TROUPE_DECLARE_LOOPS(AttentionBackwardLoops, attention_backward_loops)

}  // namespace troupe::kernels
