#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::attention_forward(const AttentionShape&, ConstView, ConstView, ConstView, View, View) {
  TROUPE_CHECK(false, "attention_forward is not there yet");
}

void CpuStream::attention_backward(const AttentionShape&, ConstView, ConstView, ConstView, ConstView,
                                   ConstView, ConstView, View, View, View) {
  TROUPE_CHECK(false, "attention_backward is not there yet");
}

}  // namespace troupe::kernels
