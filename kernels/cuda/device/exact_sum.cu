#include "kernels/cuda/device/embedding.hpp"
#include "kernels/cuda/device/exact_sum.hpp"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/optimizer.hpp"

namespace troupe::kernels {

TROUPE_KERNEL(FoldBlocks<device::ContiguousBlocks>)
TROUPE_KERNEL(FoldBlocks<device::RowBlocks>)
TROUPE_KERNEL(RoundBlocks)
TROUPE_KERNEL(BlockSquareSums)
TROUPE_KERNEL(AdamWBlocks)
TROUPE_KERNEL(EmbeddingForward<1>)
TROUPE_KERNEL(EmbeddingForward<8>)
TROUPE_KERNEL(SegmentSums<1>)
TROUPE_KERNEL(SegmentSums<8>)

}  // namespace troupe::kernels
