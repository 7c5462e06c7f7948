#include "kernels/cpu/stream.hpp"

#include <omp.h>
#include <xmmintrin.h>

#include "kernels/cpu/loops/activation.hpp"
#include "kernels/cpu/loops/attention.hpp"
#include "kernels/cpu/loops/block_codec.hpp"
#include "kernels/cpu/loops/convert.hpp"
#include "kernels/cpu/loops/cross_entropy.hpp"
#include "kernels/cpu/loops/embedding.hpp"
#include "kernels/cpu/loops/exact_sum.hpp"
#include "kernels/cpu/loops/inference.hpp"
#include "kernels/cpu/loops/int8.hpp"
#include "kernels/cpu/loops/linear.hpp"
#include "kernels/cpu/loops/norm.hpp"
#include "kernels/cpu/loops/optimizer.hpp"
#include "kernels/cpu/loops/panels.hpp"
#include "kernels/cpu/loops/rotary.hpp"
#include "kernels/cpu/loops/row_panels.hpp"
#include "kernels/dropout.hpp"

namespace troupe::kernels {

// One line a group of loops.
// clang-format off
#define TROUPE_LOOPS_OF(isa)                              \
  Loops {                                                 \
    .activation = &isa::activation_loops,                 \
    .attention_backward = &isa::attention_backward_loops, \
    .attention = &isa::attention_loops,                   \
    .block_codec = &isa::block_codec_loops,               \
    .convert = &isa::convert_loops,                       \
    .cross_entropy = &isa::cross_entropy_loops,           \
    .embedding = &isa::embedding_loops,                   \
    .exact_sum = &isa::exact_sum_loops,                   \
    .inference = &isa::inference_loops,                   \
    .int8 = &isa::int8_loops,                             \
    .linear = &isa::linear_loops,                         \
    .norm = &isa::norm_loops,                             \
    .optimizer = &isa::optimizer_loops,                   \
    .panels = &isa::panel_loops,                          \
    .rotary = &isa::rotary_loops,                         \
    .row_panels = &isa::row_panel_loops,                  \
  }
// clang-format on

Loops loops_of(IsaLevel level) {
  switch (level) {
    case IsaLevel::v2:
      return TROUPE_LOOPS_OF(v2);
    case IsaLevel::v3:
      return TROUPE_LOOPS_OF(v3);
    case IsaLevel::v4:
      return TROUPE_LOOPS_OF(v4);
  }
  return {};
}

DropoutMask mask_of(const Dropout& dropout) {
  TROUPE_CHECK(dropout.rate >= 0 && dropout.rate < 1, "dropout rate {}", dropout.rate);
  if (dropout.rate == 0) return {0, 0, 1.0f};
  return {dropout.key, dropout_threshold(dropout.rate), 1.0f / (1.0f - dropout.rate)};
}

CpuStream::CpuStream(IsaLevel level, const CpuLimits& limits)
    : level_(level),
      limits_(limits),
      loops_(loops_of(level)),
      products_(std::make_unique<Products>(scratch_)) {
  _mm_setcsr(kFloatState);
  omp_set_num_threads(1);
}

CpuStream::~CpuStream() = default;

}  // namespace troupe::kernels
