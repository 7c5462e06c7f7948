// CUDA graphs of the calls of a CUDA stream. A graph is captured from the very calls that `direct` makes,
// products by cuBLASLt with them, and keeps the nodes of kernels and of copies to the device, which alone are
// ever changed.
#pragma once

#include "kernels/cuda/graph_device.hpp"

namespace troupe::kernels {

// `direct` is a runtime of GPU `device` with a stream of its own, and outlives what is made; one thread at a
// time uses them.
std::unique_ptr<GraphDevice> make_cuda_graphs(DeviceRuntime& direct, int device);

}  // namespace troupe::kernels
