#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::residual_norm_forward(const ResidualNorm&) {
  TROUPE_CHECK(false, "residual_norm_forward is not there yet");
}

void CpuStream::residual_norm_backward(const ResidualNormGrad&) {
  TROUPE_CHECK(false, "residual_norm_backward is not there yet");
}

}  // namespace troupe::kernels
