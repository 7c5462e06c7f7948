#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/product.hpp"

namespace troupe::kernels {

TROUPE_KERNEL(PlainProduct<float, float>)
TROUPE_KERNEL(PlainProduct<uint16_t, float>)
TROUPE_KERNEL(PlainProduct<uint16_t, uint16_t>)

}  // namespace troupe::kernels
