#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rotary.hpp"

namespace troupe::kernels {

TROUPE_KERNEL(Rotate<float, 1>)
TROUPE_KERNEL(Rotate<float, 8>)
TROUPE_KERNEL(Rotate<uint16_t, 1>)
TROUPE_KERNEL(Rotate<uint16_t, 8>)

}  // namespace troupe::kernels
