#include "kernels/cuda/device/checksum.hpp"

#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(ChecksumPieces)

}  // namespace troupe::kernels
