#include "kernels/cpu/loops/cross_entropy.hpp"

#include "kernels/cpu/loops/vec_math.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// The first n lanes of x, the others `fill`.
TROUPE_INLINE Vec load_or(const float* x, int64_t n, float fill) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? x[i] : fill;
  return load(static_cast<const float*>(lanes));
}

float row_max(const float* z, int64_t cols) {
  Vec largest = broadcast(kMinusInfinity);
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) largest = max(largest, load(z + c));
  if (c < cols) largest = max(largest, load_or(z + c, cols - c, kMinusInfinity));
  return max_lanes(largest);
}

void accumulate_row(const float* z, int64_t cols, float& row_largest, float& row_sum, float& row_total) {
  const float block_largest = row_max(z, cols);
  const float largest = block_largest > row_largest ? block_largest : row_largest;
  const Vec shift = broadcast(largest);
  Vec sum = zero(), total = zero();
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) {
    const Vec x = load(z + c);
    sum = sum + exp(x - shift);
    total = total + x;
  }
  if (c < cols) {
    sum = sum + exp(load_or(z + c, cols - c, kMinusInfinity) - shift);
    total = total + load(z + c, cols - c);
  }
  const float scale = sum_lanes(exp(broadcast(row_largest - largest))) * (1.0f / kLanes);
  row_sum = (row_sum == 0 ? 0 : row_sum * scale) + sum_lanes(sum);
  row_total += sum_lanes(total);
  row_largest = largest;
}

void accumulate(const LogitBlock& block, const SoftmaxRows& state) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t target = block.targets[r];
    if (target < 0) continue;
    const float* z = block.logits + r * block.cols;
    if (target >= block.first && target < block.first + block.cols) state.target[r] = z[target - block.first];
    accumulate_row(z, block.cols, state.max[r], state.sum[r], state.total[r]);
  }
}

void log_sums(const SoftmaxRows& state, int64_t rows, float* log_sum) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t n = rows - r < kLanes ? rows - r : kLanes;
    const Vec sum = load(state.sum + r, n);
    store(log_sum + r, load(state.max + r, n) + log(sum) + (sum - sum), n);
  }
}

template <typename T>
void gradient(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed, T* dlogits) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const float* z = block.logits + r * block.cols;
    T* d = dlogits + r * block.cols;
    const int64_t target = block.targets[r];
    if (target < 0) {
      for (int64_t c = 0; c < block.cols; ++c) d[c] = 0;
      continue;
    }
    const Vec shift = broadcast(log_sum[r]), off = broadcast(smoothed.off);
    int64_t c = 0;
    for (; c + kLanes <= block.cols; c += kLanes) store(d + c, exp(load(z + c) - shift) - off);
    if (c < block.cols) store(d + c, exp(load(z + c, block.cols - c) - shift) - off, block.cols - c);
    if (target < block.first || target >= block.first + block.cols) continue;
    const int64_t at = target - block.first;
    store(d + at, exp(load(z + at, 1) - shift) - off - broadcast(smoothed.on), 1);
  }
}

}  // namespace

extern const CrossEntropyLoops cross_entropy_loops = {accumulate, log_sums, gradient<float>,
                                                      gradient<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
