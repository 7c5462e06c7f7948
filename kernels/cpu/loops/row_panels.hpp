// Loops of kernels/cpu/training_panels.cpp: panels whose depth are the rows of a matrix, and the product over
// the rows of two of them, as the gradient of a weight is. Of bf16; at level v4 alone, others have nulls
// here.
#pragma once

#include "kernels/cpu/loops/panels.hpp"

namespace troupe::kernels {

struct RowPanelLoops {
  // x (rows, packed.n) into panels of sixteen of its columns; packed.depth is `rows`, rounded up. The sums of
  // its columns, rows in order, are added to column_sums (packed.n) unless that is null.
  void (*pack)(const uint16_t* x, int64_t rows, int64_t stride, const PanelWeight& packed,
               float* column_sums);
  // y (a.n, b.n) f32, overwritten or added to: the sum over the depth, which is that of both, of a times b.
  void (*multiply)(const PanelWeight& a, const PanelWeight& b, const PanelResult& y);
};

TROUPE_DECLARE_LOOPS(RowPanelLoops, row_panel_loops)

}  // namespace troupe::kernels
