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

// Scratch of one head, f32; Dp and Tp are D and Tk rounded up to 16. The second half is used by the backward
// pass.
struct AttentionWork {
  float* keys;      // (Tp, Dp)
  float* keys_t;    // (Dp, Tp)
  float* values;    // (Tp, Dp)
  float* queries;   // (kAttentionQueries, Dp), scaled
  float* out;       // (kAttentionQueries, Dp): of the output, or of dq
  float* scores;    // (kAttentionQueries, kAttentionStride)
  uint32_t* words;  // kAttentionQueries * (kAttentionKeys + 128): random words of the weights
  float* values_t;  // (Dp, Tp)
  float* dscores;   // (kAttentionQueries, kAttentionStride)
  float* dout;      // (kAttentionQueries, Dp)
  float* dkeys;     // (Tp, Dp)
  float* dvalues;   // (Tp, Dp)
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

struct AttentionLoops {
  void (*forward_f32)(const AttentionHead&, const AttentionForward&, const AttentionWork&);
  void (*forward_bf16)(const AttentionHead&, const AttentionForward&, const AttentionWork&);
};
struct AttentionBackwardLoops {
  void (*backward_f32)(const AttentionHead&, const AttentionBackward&, const AttentionWork&);
  void (*backward_bf16)(const AttentionHead&, const AttentionBackward&, const AttentionWork&);
};

TROUPE_DECLARE_LOOPS(AttentionLoops, attention_loops)
TROUPE_DECLARE_LOOPS(AttentionBackwardLoops, attention_backward_loops)

}  // namespace troupe::kernels
