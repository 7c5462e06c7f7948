// Every call of CUDA's runtime goes through here: check_cuda(cudaMalloc(...), "cannot allocate {} bytes",
// bytes).
#pragma once

#include <cstdio>

#include <cuda_runtime_api.h>

#include "kernels/base/error.hpp"

namespace troupe::kernels {

constexpr const char* kLessMemoryAdvice = "; use a smaller batch or a smaller model";

// Throws Error(device), Error(out_of_memory) that says what was tried and what CUDA answered.
template <typename... Args>
void check_cuda(cudaError_t status, fmt::format_string<Args...> tried, Args&&... args) {
  if (status == cudaSuccess) return;
  const bool lacks_memory = status == cudaErrorMemoryAllocation;
  if (lacks_memory) cudaGetLastError();  // answered for: the next launch is not to find it
  throw error(lacks_memory ? ErrorKind::out_of_memory : ErrorKind::device, "{}: {} ({}){}",
              fmt::format(tried, std::forward<Args>(args)...), cudaGetErrorString(status),
              cudaGetErrorName(status), lacks_memory ? kLessMemoryAdvice : "");
}

// For destructors, which do not throw.
inline void report_cuda(cudaError_t status, const char* tried) {
  if (status != cudaSuccess && status != cudaErrorCudartUnloading)
    std::fprintf(stderr, "%s: %s (%s)\n", tried, cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace troupe::kernels
