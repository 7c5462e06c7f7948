#include "kernels/cuda/device/column_sums.hpp"
#include "kernels/cuda/device/convert.hpp"
#include "kernels/cuda/device/inference.hpp"
#include "kernels/cuda/device/launch.cuh"

namespace troupe::kernels {

TROUPE_KERNEL(Convert<float, uint16_t, 1>)
TROUPE_KERNEL(Convert<float, uint16_t, 8>)
TROUPE_KERNEL(Convert<uint16_t, float, 1>)
TROUPE_KERNEL(Convert<uint16_t, float, 8>)
TROUPE_KERNEL(Add<1>)
TROUPE_KERNEL(Add<8>)
TROUPE_KERNEL(ColumnRuns<device::PlainColumns<float>, 1>)
TROUPE_KERNEL(ColumnRuns<device::PlainColumns<float>, 8>)
TROUPE_KERNEL(ColumnRuns<device::PlainColumns<uint16_t>, 1>)
TROUPE_KERNEL(ColumnRuns<device::PlainColumns<uint16_t>, 8>)
TROUPE_KERNEL(ColumnTotals)
TROUPE_KERNEL(LogSoftmaxTopK)

}  // namespace troupe::kernels
