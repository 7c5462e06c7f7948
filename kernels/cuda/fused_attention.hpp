// Attention by cuDNN's fused kernels. The engine of a shape is chosen once and kept: the first that cuDNN
// offers for it, by its heuristics, among those that give the same bits every time. The gradient is had on
// GPUs of compute capability 8 and 9: there each of its sums is a product of its own, and has one order;
// engines of later GPUs would have to be told so in ways that differ from version to version. Without cuDNN
// (no_fused_attention.cpp) there is no engine for any shape. One thread, one stream.
#pragma once

#include <memory>
#include <string>

#include <cuda_runtime_api.h>

#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

// What the bits of attention depend on beside the GPU and the driver, in words.
std::string attention_numerics(int device);

class CudnnAttention {
 public:
  CudnnAttention(cudaStream_t stream, int device);
  ~CudnnAttention();

  // As DeviceRuntime has them; the GPU is the current one. Throw Error(device), Error(out_of_memory) when
  // cuDNN fails.
  std::optional<size_t> workspace(const FusedAttention& attention);
  void attend(const FusedAttention& attention);

 private:
  struct State;
  State& state();

  cudaStream_t stream_;
  int device_;
  std::unique_ptr<State> state_;  // made when it is first asked
};

}  // namespace troupe::kernels
