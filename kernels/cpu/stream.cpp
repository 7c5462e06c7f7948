#include "kernels/cpu/stream.hpp"

#include <omp.h>
#include <xmmintrin.h>

#include "kernels/cpu/loops/block_codec.hpp"
#include "kernels/cpu/loops/convert.hpp"
#include "kernels/cpu/loops/exact_sum.hpp"
#include "kernels/dropout.hpp"

namespace troupe::kernels {

namespace {
// All exceptions masked, round to nearest even, flush to zero (bit 15), denormals are zero (bit 6).
constexpr unsigned kFloatState = 0x1f80 | 0x8000 | 0x0040;
}  // namespace

Loops loops_of(IsaLevel level) {
  switch (level) {
    case IsaLevel::v2:
      return {&v2::convert_loops, &v2::exact_sum_loops, &v2::block_codec_loops};
    case IsaLevel::v3:
      return {&v3::convert_loops, &v3::exact_sum_loops, &v3::block_codec_loops};
    case IsaLevel::v4:
      return {&v4::convert_loops, &v4::exact_sum_loops, &v4::block_codec_loops};
  }
  return {};
}

DropoutMask mask_of(const Dropout& dropout) {
  TROUPE_CHECK(dropout.rate >= 0 && dropout.rate < 1, "dropout rate {}", dropout.rate);
  if (dropout.rate == 0) return {0, 0, 1.0f};
  return {dropout.key, dropout_threshold(dropout.rate), 1.0f / (1.0f - dropout.rate)};
}

CpuStream::CpuStream(IsaLevel level) : level_(level), loops_(loops_of(level)) {
  _mm_setcsr(kFloatState);
  omp_set_num_threads(1);
}

CpuStream::~CpuStream() = default;

}  // namespace troupe::kernels
