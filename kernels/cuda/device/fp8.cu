#include "kernels/cuda/device/fp8.hpp"
#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(LargestMagnitude<float, 1>)
TROUPE_KERNEL(LargestMagnitude<float, 8>)
TROUPE_KERNEL(LargestMagnitude<uint16_t, 1>)
TROUPE_KERNEL(LargestMagnitude<uint16_t, 8>)
TROUPE_KERNEL(Quantise<uint16_t, device::E4M3, 1>)
TROUPE_KERNEL(Quantise<uint16_t, device::E4M3, 8>)
TROUPE_KERNEL(Quantise<uint16_t, device::E5M2, 1>)
TROUPE_KERNEL(Quantise<uint16_t, device::E5M2, 8>)
TROUPE_KERNEL(QuantiseBothWays<device::E4M3>)

}  // namespace troupe::kernels
