// Loops of kernels/cpu/panels.cpp: y = x W^T + bias where W lies in panels. An element of y is one chain of
// sums over the depth in order, whatever the other rows are.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

constexpr int64_t kPanelColumns = 16;  // output channels of a panel

// A weight W (n, depth): (n/16, depth, 16) f32, or (n/16, depth/2, 16, 2) bf16, rounded up, zeros where W has
// nothing. Also a range of the channels or of the depth of such a weight.
struct PanelWeight {
  int64_t n, depth;  // of bf16 the depth is a multiple of 2
  int64_t panel;     // elements from a panel to the next
  void* elements;
};

// x (rows, depth): f32, or bf16 as its bits.
struct PanelRows {
  const void* elements;
  int64_t rows, stride;
};

// y (rows, n).
struct PanelResult {
  void* elements;
  int64_t stride;
  const float* bias;  // (n), or null
  enum Before : uint8_t {
    overwritten,
    added_to,   // y + (sum + bias)
    continued,  // f32 only: the sums go on from y, as if the depth before had been part of this product
  } before;
};

struct PanelLoops {
  // All channels of `packed` from w (n, k).
  void (*pack_f32)(const float* w, int64_t k, int64_t stride, const PanelWeight& packed);
  void (*pack_bf16)(const uint16_t* w, int64_t k, int64_t stride, const PanelWeight& packed);
  // x and W are of one type, and so is y where no other is named.
  void (*multiply_f32)(const PanelRows& x, const PanelWeight& w, const PanelResult& y);
  void (*multiply_f32_to_bf16)(const PanelRows& x, const PanelWeight& w, const PanelResult& y);
  void (*multiply_bf16)(const PanelRows& x, const PanelWeight& w, const PanelResult& y);
  void (*multiply_bf16_to_f32)(const PanelRows& x, const PanelWeight& w, const PanelResult& y);
};

TROUPE_DECLARE_LOOPS(PanelLoops, panel_loops)

}  // namespace troupe::kernels
