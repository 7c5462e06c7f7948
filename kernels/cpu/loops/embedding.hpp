// Loops of kernels/cpu/embedding.cpp: one row; `first` is dropout's counter of its first element. The same
// bits at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct EmbeddingLoops {
  // out = dropout(table * scale + position); position may be null.
  void (*forward)(const float* table, const float* position, int64_t cols, float scale,
                  const DropoutMask* mask, uint64_t first, float* out);
  // sum += the gradient that dropout lets through of dout.
  void (*add)(const float* dout, int64_t cols, const DropoutMask* mask, uint64_t first, float* sum);
  void (*scale)(float* row, int64_t cols, float factor);
};

TROUPE_DECLARE_LOOPS(EmbeddingLoops, embedding_loops)

}  // namespace troupe::kernels
