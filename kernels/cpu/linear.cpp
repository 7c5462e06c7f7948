#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

size_t CpuStream::packed_bytes(int64_t, int64_t, DType) const {
  TROUPE_CHECK(false, "packed_bytes is not there yet");
  return {};
}

PackedWeight CpuStream::pack(ConstView, DType, void*) {
  TROUPE_CHECK(false, "pack is not there yet");
  return {};
}

void CpuStream::linear_forward(ConstView, PackedWeight, ConstView, View) {
  TROUPE_CHECK(false, "linear_forward is not there yet");
}

void CpuStream::linear_backward_input(ConstView, PackedWeight, View, bool) {
  TROUPE_CHECK(false, "linear_backward_input is not there yet");
}

void CpuStream::linear_backward_weight(ConstView, ConstView, View, View) {
  TROUPE_CHECK(false, "linear_backward_weight is not there yet");
}

}  // namespace troupe::kernels
