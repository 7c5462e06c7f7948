// Loops of kernels/cpu/training_panels.cpp: panels whose depth are the rows of a matrix, and the product over
// the rows of two of them, as the gradient of a weight is. Panels hold pairs of bf16 at level v4, f32 at v3;
// v2 has nulls here.
#pragma once

#include "kernels/cpu/loops/panels.hpp"

namespace troupe::kernels {

struct RowPanelLoops {
  int64_t left_columns;  // of a panel of the product's left factor; the right one's are kPanelColumns wide
  // x (rows, packed.n) into panels of its columns; packed.depth is `rows`, rounded up. As the left factor the
  // sums of its columns, rows in order, are added to column_sums (packed.n) unless that is null. f32 at v3
  // only.
  void (*pack_left_f32)(const float* x, int64_t rows, int64_t stride, const PanelWeight& packed,
                        float* column_sums);
  void (*pack_left_bf16)(const uint16_t* x, int64_t rows, int64_t stride, const PanelWeight& packed,
                         float* column_sums);
  void (*pack_right_f32)(const float* x, int64_t rows, int64_t stride, const PanelWeight& packed);
  void (*pack_right_bf16)(const uint16_t* x, int64_t rows, int64_t stride, const PanelWeight& packed);
  // y (left.n, right.n) f32, overwritten or added to: the sum over the depth, which is that of both.
  void (*multiply)(const PanelWeight& left, const PanelWeight& right, const PanelResult& y);
};

TROUPE_DECLARE_LOOPS(RowPanelLoops, row_panel_loops)

}  // namespace troupe::kernels
