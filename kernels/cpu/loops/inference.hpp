// Loops of kernels/cpu/inference.cpp.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct InferenceLoops {
  // The k (1..count) largest log-softmax values of one row, largest first, equal ones by id; NaN counts as
  // the smallest.
  void (*log_softmax_topk)(const float* logits, int64_t count, int64_t k, float* values, int32_t* ids);
};

TROUPE_DECLARE_LOOPS(InferenceLoops, inference_loops)

}  // namespace troupe::kernels
