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

// Keeps the exponentials in `kept` unless it is null. Returns their shift, the largest logit so far.
template <typename T>
float accumulate_row(const float* z, int64_t cols, float& row_largest, float& row_sum, float& row_total,
                     T* kept) {
  const float block_largest = row_max(z, cols);
  const float largest = block_largest > row_largest ? block_largest : row_largest;
  const Vec shift = broadcast(largest);
  Vec sum = zero(), total = zero();
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) {
    const Vec x = load(z + c), e = exp(x - shift);
    sum = sum + e;
    total = total + x;
    if (kept != nullptr) store(kept + c, e);
  }
  if (c < cols) {
    const Vec e = exp(load_or(z + c, cols - c, kMinusInfinity) - shift);
    sum = sum + e;
    total = total + load(z + c, cols - c);
    if (kept != nullptr) store(kept + c, e, cols - c);
  }
  const float scale = sum_lanes(exp(broadcast(row_largest - largest))) * (1.0f / kLanes);
  row_sum = (row_sum == 0 ? 0 : row_sum * scale) + sum_lanes(sum);
  row_total += sum_lanes(total);
  return row_largest = largest;
}

template <typename T>
void accumulate(const LogitBlock& block, const SoftmaxRows& state, const KeptExponentials& kept) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t target = block.targets[r];
    if (target < 0) continue;
    const float* z = block.logits + r * block.cols;
    if (target >= block.first && target < block.first + block.cols) state.target[r] = z[target - block.first];
    T* values = kept.values == nullptr ? nullptr : static_cast<T*>(kept.values) + r * block.cols;
    const float shift = accumulate_row(z, block.cols, state.max[r], state.sum[r], state.total[r], values);
    if (values != nullptr) kept.shift[r] = shift;
  }
}

void log_sums(const SoftmaxRows& state, int64_t rows, float* log_sum) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t n = rows - r < kLanes ? rows - r : kLanes;
    const Vec sum = load(state.sum + r, n);
    store(log_sum + r, load(state.max + r, n) + log(sum) + (sum - sum), n);
  }
}

// Whether the row counts, after zeroing its gradient when not.
template <typename T>
bool counted(const LogitBlock& block, int64_t r, T* d) {
  if (block.targets[r] >= 0) return true;
  for (int64_t c = 0; c < block.cols; ++c) d[c] = 0;
  return false;
}

// Overwrites the gradient of the row's target, when it lies in this block: exact, whatever was kept.
template <typename T>
void set_target(const LogitBlock& block, int64_t r, float logit, float log_sum, SmoothedTarget smoothed,
                T* d) {
  const int64_t at = block.targets[r] - block.first;
  if (at < 0 || at >= block.cols) return;
  store(d + at, exp(broadcast(logit - log_sum)) - broadcast(smoothed.off) - broadcast(smoothed.on), 1);
}

template <typename T>
void gradient(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed, void* dlogits) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const float* z = block.logits + r * block.cols;
    T* d = static_cast<T*>(dlogits) + r * block.cols;
    if (!counted(block, r, d)) continue;
    const Vec shift = broadcast(log_sum[r]), off = broadcast(smoothed.off);
    int64_t c = 0;
    for (; c + kLanes <= block.cols; c += kLanes) store(d + c, exp(load(z + c) - shift) - off);
    if (c < block.cols) store(d + c, exp(load(z + c, block.cols - c) - shift) - off, block.cols - c);
    const int64_t at = block.targets[r] - block.first;
    if (at >= 0 && at < block.cols) set_target(block, r, z[at], log_sum[r], smoothed, d);
  }
}

template <typename T>
void kept_gradient(const LogitBlock& block, const float* log_sum, SmoothedTarget smoothed,
                   const float* target, const KeptExponentials& kept) {
  for (int64_t r = 0; r < block.rows; ++r) {
    T* d = static_cast<T*>(kept.values) + r * block.cols;
    if (!counted(block, r, d)) continue;
    const Vec factor = exp(broadcast(kept.shift[r] - log_sum[r])), off = broadcast(smoothed.off);
    int64_t c = 0;
    for (; c + kLanes <= block.cols; c += kLanes)
      store(d + c, load(static_cast<const T*>(d + c)) * factor - off);
    if (c < block.cols)
      store(d + c, load(static_cast<const T*>(d + c), block.cols - c) * factor - off, block.cols - c);
    set_target(block, r, target[r], log_sum[r], smoothed, d);
  }
}

}  // namespace

extern const CrossEntropyLoops cross_entropy_loops = {
    accumulate<float>,    accumulate<uint16_t>,   log_sums, gradient<float>, gradient<uint16_t>,
    kept_gradient<float>, kept_gradient<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
