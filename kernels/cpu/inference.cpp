#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::log_softmax_topk(ConstView, int64_t, View, View) {
  TROUPE_CHECK(false, "log_softmax_topk is not there yet");
}

void CpuStream::gather_rows(ConstView, std::span<const int32_t>, View) {
  TROUPE_CHECK(false, "gather_rows is not there yet");
}

}  // namespace troupe::kernels
