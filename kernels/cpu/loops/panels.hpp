// Loops of kernels/cpu/panels.cpp: y = x W^T + bias where W lies in panels, for inference. An element of y is
// one chain of sums over K in order, whatever the other rows are.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

constexpr int64_t kPanelColumns = 16;  // output channels of a panel

// A weight W (N, K): (N/16, K, 16) f32, or (N/16, K/2, 16, 2) bf16, rounded up, zeros where W has nothing.
struct PanelWeight {
  int64_t n, depth;  // N; K, of bf16 rounded up to a multiple of 2
  void* elements;
};

// x (M, depth): f32, or bf16 as its bits.
struct PanelRows {
  const void* elements;
  int64_t rows, stride;
};

struct PanelLoops {
  void (*pack_f32)(const float* w, int64_t k, int64_t stride, const PanelWeight& packed);
  void (*pack_bf16)(const uint16_t* w, int64_t k, int64_t stride, const PanelWeight& packed);
  // No bias: null. x and W are of one type.
  void (*multiply_f32)(const PanelRows& x, const PanelWeight& w, const float* bias, float* y, int64_t stride);
  void (*multiply_bf16)(const PanelRows& x, const PanelWeight& w, const float* bias, uint16_t* y,
                        int64_t stride);
  void (*multiply_bf16_to_f32)(const PanelRows& x, const PanelWeight& w, const float* bias, float* y,
                               int64_t stride);
};

TROUPE_DECLARE_LOOPS(PanelLoops, panel_loops)

}  // namespace troupe::kernels
