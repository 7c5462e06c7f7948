#include "kernels/cpu/loops/embedding.hpp"

#include "kernels/cpu/loops/runs.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

void forward(const float* table, const float* position, int64_t cols, float scale, const DropoutMask* mask,
             uint64_t first, float* out) {
  for_row_dropped(*mask, first, cols, [&](int64_t i, auto lanes, Vec factors) TROUPE_BODY {
    Vec y = load(table + i, lanes) * broadcast(scale);
    if (position != nullptr) y = y + load(position + i, lanes);
    store(out + i, y * factors, lanes);
  });
}

void add(const float* dout, int64_t cols, const DropoutMask* mask, uint64_t first, float* sum) {
  for_row_dropped(*mask, first, cols, [&](int64_t i, auto lanes, Vec factors) TROUPE_BODY {
    store(sum + i, load(sum + i, lanes) + load(dout + i, lanes) * factors, lanes);
  });
}

void scale(float* row, int64_t cols, float factor) {
  for_row(cols, [&](int64_t i, auto lanes)
                    TROUPE_BODY { store(row + i, load(row + i, lanes) * broadcast(factor), lanes); });
}

}  // namespace

extern const EmbeddingLoops embedding_loops = {forward, add, scale};

}  // namespace troupe::kernels::TROUPE_ISA
