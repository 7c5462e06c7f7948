// Matrix products by cuBLASLt. The algorithm of a shape is asked for once and kept; sums split over K are
// joined in the workspace, in f32 and a fixed order, never with atomics. So a GPU model and cuBLAS version
// give a shape the same bits every time. Keeps cublasLt.h out of every other file. One thread, one stream.
//
// Activations are fused into bf16 results alone, and from compute capability 9.0 on: cuBLASLt does not say
// how exact its tanh is, which bf16 hides and f32 would not, and older GPUs' products have such an epilogue
// in a pass of its own (llm.c found it slower than a kernel). ReLU is not fused: its auxiliary matrix would
// be bits, not pre. Of the gradients of biases, column_sums is BGRADB of the product for the weight's
// gradient, whose type is that of the result: f32. That of DGELU_BGRAD would be bf16, and is not used.
#pragma once

#include <memory>
#include <string>

#include <cuda_runtime_api.h>

#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

std::string cublas_version();  // "13.0.2"

class CudaProducts {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;
  static constexpr size_t kPlansMax = 4096;  // when so many are held it forgets them all

  // The workspace has kWorkspaceBytes; both outlive this.
  CudaProducts(cudaStream_t stream, void* workspace);
  ~CudaProducts();

  // False when cuBLASLt has no algorithm for the shape, type and alignment. Throws Error(device) when it
  // fails.
  bool multiply(const Product& product);
  bool has_algorithm(const Product& product);

 private:
  struct Plan;
  struct Cache;
  Plan& plan_of(const Product& product);

  cudaStream_t stream_;
  void* workspace_;
  int capability_ = 0;  // 90 for sm_90
  std::unique_ptr<Cache> cache_;
};

}  // namespace troupe::kernels
