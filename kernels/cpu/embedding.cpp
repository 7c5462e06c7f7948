#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::embedding_forward(std::span<const int32_t>, ConstView, ConstView, float, Dropout, View) {
  TROUPE_CHECK(false, "embedding_forward is not there yet");
}

void CpuStream::embedding_backward(std::span<const int32_t>, int32_t, float, Dropout, ConstView,
                                   GradientSink&, int64_t, View) {
  TROUPE_CHECK(false, "embedding_backward is not there yet");
}

}  // namespace troupe::kernels
