// Matrix products by cuBLASLt. The algorithm of a shape is asked for once and kept; sums split over K are
// joined in the workspace, in f32 and a fixed order, never with atomics. So a GPU model and cuBLAS version
// give a shape the same bits every time. Keeps cublasLt.h out of every other file. One thread, one stream.
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

 private:
  struct Plan;
  struct Cache;
  Plan& plan_of(const Product& product);

  cudaStream_t stream_;
  void* workspace_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace troupe::kernels
