#include "kernels/cpu/loops/rotary.hpp"

#include "kernels/checks.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::rotate(View x, ConstView turns, bool inverse) {
  check_rotation(x, turns);
  const int64_t heads = x.cols / turns.cols, half = turns.cols / 2;
  const float sign = inverse ? -1.0f : 1.0f;
  for (int64_t row = 0; row < x.rows; ++row) {
    const float* cosines = turns.as<float>() + row % turns.rows * turns.stride;
    if (x.dtype == DType::bf16)
      loops_.rotary->rotate_bf16(x.as<uint16_t>() + row * x.stride, heads, half, cosines, cosines + half,
                                 sign);
    else
      loops_.rotary->rotate_f32(x.as<float>() + row * x.stride, heads, half, cosines, cosines + half, sign);
  }
}

}  // namespace troupe::kernels
