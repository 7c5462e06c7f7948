#include "kernels/cuda/device/rotary.hpp"

#include "kernels/checks.hpp"
#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

void CudaStream::rotate(View x, ConstView turns, bool inverse) {
  check_rotation(x, turns);
  const int64_t half = turns.cols / 2;
  const bool vectors = half % device::kVector == 0 && all_take_vectors(x, turns);
  with_compute_type(x.dtype, [&](auto element) {
    with_width(vectors, [&](auto width) {
      using T = decltype(element);
      device::Rotate<T, width()> kernel;
      kernel.pairs = {x.rows, x.cols / 2};
      kernel.half = half;
      kernel.length = turns.rows;
      kernel.sign = inverse ? -1.0f : 1.0f;
      kernel.turns = rows_of<float>(turns);
      kernel.x = rows_of<T>(x);
      launch(kernel, kernel.blocks(kernel.pairs), "rotate");
    });
  });
}

}  // namespace troupe::kernels
