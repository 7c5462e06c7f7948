// The GPUs of this machine. In programs built with TROUPE_CUDA alone.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

int cuda_device_count();  // 0 where there is no GPU or no driver for this CUDA

// What decides the bits that a GPU computes: GPUs of the same words compute the same. Throw Error(device)
// when there is no such GPU.
std::string cuda_numerics(int index);
std::string cuda_description(int index);  // the GPU and its memory, for people

// How these GPUs are joined, in words: topology.hpp. Throws Error(device).
std::string cuda_topology(std::span<const int> indices);

// A stream of GPU `index`, which launches what is gathered as CUDA graphs. Throws Error(device),
// Error(out_of_memory).
std::unique_ptr<CudaStream> make_cuda_stream(int index, const CudaLimits& limits = {});

}  // namespace troupe::kernels
