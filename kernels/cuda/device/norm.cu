#include "kernels/cuda/device/column_sums.hpp"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/norm.hpp"

namespace troupe::kernels {

TROUPE_KERNEL(NormForward<float, 1>)
TROUPE_KERNEL(NormForward<float, 8>)
TROUPE_KERNEL(NormForward<uint16_t, 1>)
TROUPE_KERNEL(NormForward<uint16_t, 8>)
TROUPE_KERNEL(NormBackward<float, 1>)
TROUPE_KERNEL(NormBackward<float, 8>)
TROUPE_KERNEL(NormBackward<uint16_t, 1>)
TROUPE_KERNEL(NormBackward<uint16_t, 8>)
TROUPE_KERNEL(ColumnRuns<device::NormColumns<float>, 1>)
TROUPE_KERNEL(ColumnRuns<device::NormColumns<float>, 8>)
TROUPE_KERNEL(ColumnRuns<device::NormColumns<uint16_t>, 1>)
TROUPE_KERNEL(ColumnRuns<device::NormColumns<uint16_t>, 8>)

}  // namespace troupe::kernels
