// The CUDA backend: one GPU of this machine. In programs built with TROUPE_CUDA alone.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/backend.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

int cuda_device_count();  // 0 where there is no GPU or no driver for this CUDA

// How these GPUs are joined, in words: topology.hpp. Throws Error(device).
std::string cuda_topology(std::span<const int> indices);

// A stream of GPU `index`, which launches what is gathered as CUDA graphs. Throws Error(device),
// Error(out_of_memory).
std::unique_ptr<CudaStream> make_cuda_stream(int index);

// Throws Error(device) when there is no such GPU. Its copies to and from the host wait for all work on the
// GPU.
std::unique_ptr<Backend> make_cuda_backend(int index);

}  // namespace troupe::kernels
