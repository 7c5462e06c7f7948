#include "kernels/cpu/loops/linear.hpp"

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr int kStrip = 8;  // vectors of columns summed in registers at once

template <typename T>
void column_sums(const T* x, int64_t rows, int64_t cols, int64_t stride, float* sums) {
  int64_t col = 0;
  for (; col + kStrip * kLanes <= cols; col += kStrip * kLanes) {
    Vec sum[kStrip];
    for (int s = 0; s < kStrip; ++s) sum[s] = zero();
    for (int64_t row = 0; row < rows; ++row)
      for (int s = 0; s < kStrip; ++s) sum[s] = sum[s] + load(x + row * stride + col + s * kLanes);
    for (int s = 0; s < kStrip; ++s) store(sums + col + s * kLanes, sum[s]);
  }
  for (; col < cols; col += kLanes) {
    const int64_t lanes = cols - col < kLanes ? cols - col : kLanes;
    Vec sum = zero();
    for (int64_t row = 0; row < rows; ++row) sum = sum + load(x + row * stride + col, lanes);
    store(sums + col, sum, lanes);
  }
}

}  // namespace

extern const LinearLoops linear_loops = {column_sums<float>, column_sums<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
