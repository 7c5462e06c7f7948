// A device that is none: the kernels of device/ run on the host, thread by thread; products and
// fused attention are plain loops. It shows that a CudaStream's set-up, indexing and arithmetic are right
// where there is no GPU, slowly. Each call has the floating-point state of a CPU stream, whatever its
// thread's is. Memory comes filled with bytes of ones (NaN, -1), so that what is read before it was written
// shows.
#pragma once

#include <memory>

#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

// Small limits, so that small shapes take several blocks.
inline constexpr CudaLimits kEmulatedLimits{int64_t{1} << 18, int64_t{1} << 21, int64_t{1} << 16};

// `memory` is what it says of its memory, which is the host's.
inline constexpr DeviceMemory kEmulatedMemory{size_t{1} << 40, size_t{1} << 40};

std::unique_ptr<DeviceRuntime> make_emulated_runtime(ThreadOrder order,
                                                     const DeviceMemory& memory = kEmulatedMemory,
                                                     bool multiplies_fp8 = true);

std::unique_ptr<CudaStream> make_emulated_stream(ThreadOrder order,
                                                 const CudaLimits& limits = kEmulatedLimits,
                                                 const DeviceMemory& memory = kEmulatedMemory,
                                                 bool multiplies_fp8 = true);

}  // namespace troupe::kernels
