// Kernels of kernels/cuda/embedding.cpp. The same bits as on the CPU: equal ids are added in order of
// position.
#pragma once

#include "kernels/cuda/device/elementwise.hpp"

namespace troupe::kernels::device {

template <int N>
struct EmbeddingForward : ElementTile<N> {
  Shape shape;
  DropoutRule rule;
  const int32_t* ids = nullptr;
  Rows<const float> table;
  Rows<const float> positions;  // or empty
  int64_t length = 1;           // rows of positions
  float scale = 1;
  Rows<float> out;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    this->run(block, shape, rule, [&](Place at, const uint32_t* words) {
      float v[N], position[N];
      load(table.row(ids[at.row]) + at.col, v);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) v[i] = v[i] * scale;
      if (!positions.empty()) {
        load(positions.row(at.row % length) + at.col, position);
        TROUPE_UNROLL for (int i = 0; i < N; ++i) v[i] = v[i] + position[i];
      }
      TROUPE_UNROLL for (int i = 0; i < N; ++i) v[i] =
          v[i] * (rule.drops() ? rule.factor(words[i]) : rule.scale);
      store(out.row(at.row) + at.col, v);
    });
  }
};

// out[s] = scale * sum of dropout(dout[row]) over the rows of segment s, in their order. A block takes one
// segment and a range of columns.
template <int N>
struct SegmentSums {
  static constexpr int kThreads = 128;
  static constexpr int64_t kCols = int64_t{kThreads} * N;
  struct Shared {
    uint32_t words[words_room(int(kCols))];
  };
  struct Registers {
    float sum[N];
  };

  int64_t cols = 0;  // a multiple of N
  DropoutRule rule;
  float scale = 1;
  const int32_t* rows = nullptr;    // segment after segment
  const int32_t* starts = nullptr;  // (segments + 1): where each begins in `rows`
  Rows<const float> dout;
  Rows<float> out;

  static int64_t blocks(int64_t segments, int64_t cols) { return segments * ceil_div(cols, kCols); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t tiles = ceil_div(cols, kCols), segment = block.index() / tiles;
    const int64_t first = block.index() % tiles * kCols, count = smaller(kCols, cols - first);
    block.each([&](int, Registers& own) { TROUPE_UNROLL for (int i = 0; i < N; ++i) own.sum[i] = 0; });
    for (int32_t at = starts[segment]; at < starts[segment + 1]; ++at) {
      const int64_t row = rows[at];
      const uint64_t begin = uint64_t(row * cols + first);
      uint32_t* words = block.shared().words;
      if (rule.drops())
        block.each(
            [&](int thread, Registers&) { draw_words(rule.key, begin, count, thread, kThreads, words); });
      block.each([&](int thread, Registers& own) {
        const int64_t col = int64_t{thread} * N;
        if (col >= count) return;
        float v[N];
        load(dout.row(row) + first + col, v);
        TROUPE_UNROLL for (int i = 0; i < N; ++i) own.sum[i] =
            own.sum[i] + v[i] * (rule.drops() ? rule.factor(word_of(words, begin, begin + uint64_t(col + i)))
                                              : rule.scale);
      });
    }
    block.each([&](int thread, Registers& own) {
      const int64_t col = int64_t{thread} * N;
      if (col >= count) return;
      TROUPE_UNROLL for (int i = 0; i < N; ++i) own.sum[i] = own.sum[i] * scale;
      store(out.row(segment) + first + col, own.sum);
    });
  }
};

}  // namespace troupe::kernels::device
