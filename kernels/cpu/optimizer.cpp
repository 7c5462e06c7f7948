#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::block_square_sums(const BlockLayout&, const RoundedTotal&, int64_t, int64_t, double*) {
  TROUPE_CHECK(false, "block_square_sums is not there yet");
}

void CpuStream::adamw(const AdamW&, const BlockLayout&, const RoundedTotal&, int64_t, int64_t, float*, float*,
                      float*) {
  TROUPE_CHECK(false, "adamw is not there yet");
}

}  // namespace troupe::kernels
