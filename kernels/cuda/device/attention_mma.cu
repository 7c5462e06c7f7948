#include "kernels/cuda/device/attention_mma_backward.hpp"
#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(AttentionForwardMma<64>)
TROUPE_KERNEL(AttentionForwardMma<128>)
TROUPE_KERNEL(AttentionQueryGradientMma<64>)
TROUPE_KERNEL(AttentionQueryGradientMma<128>)
TROUPE_KERNEL(AttentionKeyGradientMma<64>)
TROUPE_KERNEL(AttentionKeyGradientMma<128>)

}  // namespace troupe::kernels
