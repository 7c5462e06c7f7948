// Loops of kernels/cpu/activation.cpp: a run of consecutive elements, whose first has dropout counter
// `first`. relu gives the same bits at every level; gelu uses fused multiply-adds (v3 and v4 alike, v2 may
// differ in the last bit).
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

template <typename T>
struct ActivationLoopsOf {
  using Forward = void (*)(const T* x, int64_t count, const DropoutMask* mask, uint64_t first, T* y);
  using Backward = void (*)(const T* x, const T* dy, int64_t count, const DropoutMask* mask, uint64_t first,
                            T* dx);
  Forward relu_forward;
  Backward relu_backward;
  Forward gelu_forward;
  Backward gelu_backward;
};
struct ActivationLoops {
  ActivationLoopsOf<float> f32;
  ActivationLoopsOf<uint16_t> bf16;
};

TROUPE_DECLARE_LOOPS(ActivationLoops, activation_loops)

}  // namespace troupe::kernels
