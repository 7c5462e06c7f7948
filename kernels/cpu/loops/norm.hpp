// Loops of kernels/cpu/norm.cpp: one row. Pointers may be null where kernels/backend.hpp lets the view be
// empty; gamma without beta, or dgamma without dbeta, is RMS norm, whose mean is zero. No fused multiply-add:
// the same bits at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

// T is float or uint16_t (bf16), the compute type.
template <typename T>
struct NormRow {
  int64_t cols;
  const float* x;
  const T* y;
  DropoutMask mask;
  uint64_t first;  // dropout's counter of the row's first element
  const float* gamma;
  const float* beta;
  float* sum;
  T* normed;
  float* normed_f32;
  float* mean;
  float* rstd;
};

template <typename T>
struct NormGradRow {
  int64_t cols;
  const T* dnormed;
  const float* dnormed_f32;
  const float* dsum_in;
  const float* sum;
  const float* gamma;
  float mean;
  float rstd;
  DropoutMask mask;
  uint64_t first;
  float* dsum;
  T* dy;
  float* dgamma;  // accumulated
  float* dbeta;   // accumulated
};

struct NormLoops {
  void (*forward_f32)(const NormRow<float>*);
  void (*forward_bf16)(const NormRow<uint16_t>*);
  void (*backward_f32)(const NormGradRow<float>*);
  void (*backward_bf16)(const NormGradRow<uint16_t>*);
};

TROUPE_DECLARE_LOOPS(NormLoops, norm_loops)

}  // namespace troupe::kernels
