#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

LossSums CpuStream::cross_entropy(const CrossEntropy&) {
  TROUPE_CHECK(false, "cross_entropy is not there yet");
  return {};
}

}  // namespace troupe::kernels
