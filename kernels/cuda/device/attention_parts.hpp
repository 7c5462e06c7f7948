// What the attention kernels share: shapes, masks, and the coordinates of a block's head.
#pragma once

#include "kernels/cuda/device/dropout.hpp"
#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

// AttentionShape for the device, with what follows from it.
struct Heads {
  int64_t batch = 0, queries = 0, keys = 0, heads = 0;  // B, Tq, Tk, H
  int size = 0;                                         // D
  int64_t causal_offset = 0;                            // query i sees keys <= i + causal_offset
  const int32_t* lengths = nullptr;                     // (B), or null
  bool keys_by_head = false;                            // k and v are (B * H * Tk, D)
  float scale = 1;                                      // 1 / sqrt(D)
  DropoutRule rule;

  // How many keys query i of sequence b sees.
  TROUPE_DEVICE int64_t visible(int64_t b, int64_t i) const {
    const int64_t length = lengths == nullptr ? keys : int64_t{lengths[b]};
    return larger(smaller(length, i + causal_offset + 1), int64_t{0});
  }
  // Where the keys of a head begin.
  TROUPE_DEVICE int64_t key_row(int64_t b, int64_t h) const {
    return (keys_by_head ? b * heads + h : b) * keys;
  }
  TROUPE_DEVICE int64_t key_col(int64_t h) const { return keys_by_head ? 0 : h * size; }
  // Dropout's counter of the weight of query i and key j.
  TROUPE_DEVICE uint64_t weight_index(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return uint64_t(((b * heads + h) * queries + i) * keys + j);
  }
  TROUPE_DEVICE float factor(uint64_t index) const {
    if (!rule.drops()) return rule.scale;
    const auto four = philox_from(rule.key)((index >> 6 << 4) | (index & 15));
    const uint32_t low = (index & 16) == 0 ? four[0] : four[1], high = (index & 16) == 0 ? four[2] : four[3];
    return rule.factor((index & 32) == 0 ? low
                                         : high);  // no array at a run-time index: that would be local memory
  }
};

// The part of a matrix (B * T, H * D) that one block works on: `first` is its first row in sequence b.
struct HeadTile {
  int64_t b, h, first;

  static TROUPE_DEVICE HeadTile of(int64_t index, int64_t tiles, int64_t heads, int tile) {
    const int64_t head = index / tiles;
    return {head / heads, head % heads, index % tiles * tile};
  }
};

// delta (B * H, Tq) = the dot products of the rows of dout with those of out: a warp a row and head.
template <typename T>
struct AttentionDelta {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  using Shared = NoShared;
  struct Registers {
    float sum;
  };

  Heads heads;
  Rows<const T> out, dout;
  float* delta = nullptr;

  static int64_t blocks(int64_t batch, int64_t head_count, int64_t queries) {
    return ceil_div(batch * head_count * queries, kWarps);
  }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t count = heads.batch * heads.heads * heads.queries;
    block.each([&](int thread, Registers& own) {
      const int64_t index = block.index() * kWarps + thread / kWarp;
      own.sum = 0;
      if (index >= count) return;
      const int64_t head = index / heads.queries;
      const int64_t row = head / heads.heads * heads.queries + index % heads.queries;
      const T* x = out.row(row) + head % heads.heads * heads.size;
      const T* y = dout.row(row) + head % heads.heads * heads.size;
      for (int d = thread % kWarp; d < heads.size; d += kWarp)
        own.sum = fused(widen(x[d]), widen(y[d]), own.sum);
    });
    block.warp_sum([](int, Registers& own) -> float& { return own.sum; });
    block.each([&](int thread, Registers& own) {
      const int64_t index = block.index() * kWarps + thread / kWarp;
      if (thread % kWarp == 0 && index < count) delta[index] = own.sum;
    });
  }
};

}  // namespace troupe::kernels::device
