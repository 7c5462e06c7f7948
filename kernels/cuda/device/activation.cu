#include "kernels/cuda/device/activation.hpp"
#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(ActivationForward<float, 1>)
TROUPE_KERNEL(ActivationForward<float, 8>)
TROUPE_KERNEL(ActivationForward<uint16_t, 1>)
TROUPE_KERNEL(ActivationForward<uint16_t, 8>)
TROUPE_KERNEL(ActivationBackward<float, 1>)
TROUPE_KERNEL(ActivationBackward<float, 8>)
TROUPE_KERNEL(ActivationBackward<uint16_t, 1>)
TROUPE_KERNEL(ActivationBackward<uint16_t, 8>)

}  // namespace troupe::kernels
