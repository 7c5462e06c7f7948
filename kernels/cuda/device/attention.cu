#include "kernels/cuda/device/attention_backward.hpp"
#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(AttentionDelta<float>)
TROUPE_KERNEL(AttentionDelta<uint16_t>)
TROUPE_KERNEL(AttentionForward<float, 64>)
TROUPE_KERNEL(AttentionForward<float, 128>)
TROUPE_KERNEL(AttentionForward<float, 256>)
TROUPE_KERNEL(AttentionForward<uint16_t, 64>)
TROUPE_KERNEL(AttentionForward<uint16_t, 128>)
TROUPE_KERNEL(AttentionForward<uint16_t, 256>)
TROUPE_KERNEL(AttentionQueryGradient<float, 64>)
TROUPE_KERNEL(AttentionQueryGradient<float, 128>)
TROUPE_KERNEL(AttentionQueryGradient<float, 256>)
TROUPE_KERNEL(AttentionQueryGradient<uint16_t, 64>)
TROUPE_KERNEL(AttentionQueryGradient<uint16_t, 128>)
TROUPE_KERNEL(AttentionQueryGradient<uint16_t, 256>)
TROUPE_KERNEL(AttentionKeyGradient<float, 64>)
TROUPE_KERNEL(AttentionKeyGradient<float, 128>)
TROUPE_KERNEL(AttentionKeyGradient<float, 256>)
TROUPE_KERNEL(AttentionKeyGradient<uint16_t, 64>)
TROUPE_KERNEL(AttentionKeyGradient<uint16_t, 128>)
TROUPE_KERNEL(AttentionKeyGradient<uint16_t, 256>)

}  // namespace troupe::kernels
