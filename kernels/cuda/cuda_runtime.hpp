// The DeviceRuntime of a GPU: one CUDA stream with its cuBLASLt plans, workspace and pinned memory. Used by
// one thread at a time, whichever it is; make_cuda_runtime throws Error(device), Error(out_of_memory).
#pragma once

#include <memory>

#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

std::unique_ptr<DeviceRuntime> make_cuda_runtime(int device);

DeviceMemory cuda_memory(int device);

int cuda_capability(int device);  // 90 for sm_90; throws Error(device)

// Memory of a GPU. Throws Error(out_of_memory) with the bytes asked for and those that are free.
Buffer allocate_cuda(size_t bytes, int device);

}  // namespace troupe::kernels
