// Every call of CUDA's runtime goes through here: check_cuda(cudaMalloc(...), "cannot allocate {} bytes",
// bytes).
#pragma once

#include <cstdio>

#include <cuda_runtime_api.h>

#include "kernels/base/error.hpp"

namespace troupe::kernels {

// Throws Error(device), Error(out_of_memory) that says what was tried and what CUDA answered.
template <typename... Args>
void check_cuda(cudaError_t status, fmt::format_string<Args...> tried, Args&&... args) {
  if (status == cudaSuccess) return;
  const auto kind = status == cudaErrorMemoryAllocation ? ErrorKind::out_of_memory : ErrorKind::device;
  throw error(kind, "{}: {} ({})", fmt::format(tried, std::forward<Args>(args)...),
              cudaGetErrorString(status), cudaGetErrorName(status));
}

// For destructors, which do not throw.
inline void report_cuda(cudaError_t status, const char* tried) {
  if (status != cudaSuccess && status != cudaErrorCudartUnloading)
    std::fprintf(stderr, "%s: %s (%s)\n", tried, cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace troupe::kernels
