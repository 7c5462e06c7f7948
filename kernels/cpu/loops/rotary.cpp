#include "kernels/cpu/loops/rotary.hpp"

#include "kernels/cpu/loops/runs.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

template <typename T>
void rotate(T* row, int64_t heads, int64_t half, const float* cosines, const float* sines, float sign) {
  for (int64_t head = 0; head < heads; ++head) {
    T* first = row + 2 * half * head;
    T* second = first + half;
    for_row(half, [&](int64_t i, auto lanes) TROUPE_BODY {
      const Vec a = load(first + i, lanes), b = load(second + i, lanes);
      const Vec cosine = load(cosines + i, lanes), sine = load(sines + i, lanes) * broadcast(sign);
      store(first + i, a * cosine - b * sine, lanes);
      store(second + i, b * cosine + a * sine, lanes);
    });
  }
}

}  // namespace

extern const RotaryLoops rotary_loops = {rotate<float>, rotate<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
