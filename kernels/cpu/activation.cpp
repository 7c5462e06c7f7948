#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::activation_forward(Activation, ConstView, Dropout, View) {
  TROUPE_CHECK(false, "activation_forward is not there yet");
}

void CpuStream::activation_backward(Activation, ConstView, Dropout, ConstView, View) {
  TROUPE_CHECK(false, "activation_backward is not there yet");
}

}  // namespace troupe::kernels
