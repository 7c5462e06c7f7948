#include "kernels/cuda/device/cross_entropy.hpp"
#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(StartSoftmaxRows)
TROUPE_KERNEL(AccumulateLogits<float>)
TROUPE_KERNEL(AccumulateLogits<uint16_t>)
TROUPE_KERNEL(LogSums)
TROUPE_KERNEL(LogitGradient<float>)
TROUPE_KERNEL(LogitGradient<uint16_t>)

}  // namespace troupe::kernels
