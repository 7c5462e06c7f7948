// Kernels of kernels/cuda/cross_entropy.cpp over a block of logits (rows, cols) f32, contiguous, whose first
// column is vocabulary entry `first`: a block of threads a row. Running values over blocks as in kernels/cpu
// (Milakov & Gimelshein 2018).
#pragma once

#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

struct LogitBlock {
  const float* logits = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t first = 0;
  const int32_t* targets = nullptr;  // (rows); negative: the row is not counted
};

// (rows) each. Start: max = -infinity, the others 0.
struct SoftmaxRows {
  float* max = nullptr;     // largest logit
  float* sum = nullptr;     // of exp(logit - max)
  float* total = nullptr;   // of the logits
  float* target = nullptr;  // logit of the row's target
};

struct StartSoftmaxRows {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  using Registers = NoRegisters;
  int64_t rows = 0;
  SoftmaxRows state;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int thread, NoRegisters&) {
      const int64_t row = block.index() * kThreads + thread;
      if (row >= rows) return;
      state.max[row] = minus_infinity();
      state.sum[row] = state.total[row] = state.target[row] = 0;
    });
  }
};

// Adds a block of logits to the running values; keeps exp(logit - shift[row]) in `kept` (rows, cols) unless
// that is null, with the row's largest logit so far as shift. T is the compute type.
template <typename T>
struct AccumulateLogits {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  struct Shared {
    float max[kWarps], sum[kWarps], total[kWarps];
  };
  struct Registers {
    float max, sum, total;
  };

  LogitBlock logits;
  SoftmaxRows state;
  T* kept = nullptr;
  float* shift = nullptr;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t row = block.index(), target = logits.targets[row];
    if (target < 0) return;
    const float* z = logits.logits + row * logits.cols;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers& own) {
      own.max = minus_infinity();
      for (int64_t c = thread; c < logits.cols; c += kThreads) own.max = larger(z[c], own.max);
    });
    block.warp_max([](int, Registers& own) -> float& { return own.max; });
    block.each([&](int thread, Registers& own) {
      if (thread % kWarp == 0) shared.max[thread / kWarp] = own.max;
    });
    const float before = state.max[row];
    float largest = before;
    for (int w = 0; w < kWarps; ++w) largest = larger(shared.max[w], largest);
    block.each([&](int thread, Registers& own) { add_row(z, row, thread, largest, own); });
    block.warp_sum([](int, Registers& own) -> float& { return own.sum; });
    block.warp_sum([](int, Registers& own) -> float& { return own.total; });
    block.each([&](int thread, Registers& own) {
      if (thread % kWarp != 0) return;
      shared.sum[thread / kWarp] = own.sum;
      shared.total[thread / kWarp] = own.total;
    });
    block.each([&](int thread, Registers&) {
      if (thread != 0) return;
      float sum = state.sum[row] == 0 ? 0 : state.sum[row] * exp(before - largest), total = state.total[row];
      for (int w = 0; w < kWarps; ++w) {
        sum += shared.sum[w];
        total += shared.total[w];
      }
      state.max[row] = largest;
      state.sum[row] = sum;
      state.total[row] = total;
      if (target >= logits.first && target < logits.first + logits.cols)
        state.target[row] = z[target - logits.first];
      if (kept != nullptr) shift[row] = largest;
    });
  }

  TROUPE_DEVICE void add_row(const float* z, int64_t row, int thread, float largest, Registers& own) const {
    own.sum = own.total = 0;
    for (int64_t c = thread; c < logits.cols; c += kThreads) {
      const float e = exp(z[c] - largest);
      own.sum += e;
      own.total += z[c];
      if (kept != nullptr) kept[row * logits.cols + c] = narrow<T>(e);
    }
  }
};

// log_sum[r] = max[r] + log(sum[r]); NaN when the row had a NaN or infinity.
struct LogSums {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  using Registers = NoRegisters;
  int64_t rows = 0;
  SoftmaxRows state;
  float* log_sum = nullptr;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int thread, NoRegisters&) {
      const int64_t row = block.index() * kThreads + thread;
      if (row >= rows) return;
      const float sum = state.sum[row];
      log_sum[row] = state.max[row] + log(sum) + (sum - sum);
    });
  }
};

// softmax - smoothed target, or 0 in rows that are not counted: from the logits, or in place from the
// exponentials that were kept.
template <typename T>
struct LogitGradient {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  using Registers = NoRegisters;

  LogitBlock logits;             // logits.logits is null: from what was kept
  const float* shift = nullptr;  // of what was kept
  const float* target = nullptr;
  const float* log_sum = nullptr;
  float on = 1, off = 0;  // taken from the target's gradient, and from every entry's
  T* dlogits = nullptr;   // (rows, cols)

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t row = block.index(), at = logits.targets[row] - logits.first;
    const bool counted = logits.targets[row] >= 0;
    T* d = dlogits + row * logits.cols;
    const float* z = logits.logits == nullptr ? nullptr : logits.logits + row * logits.cols;
    const float factor = z == nullptr && counted ? exp(shift[row] - log_sum[row]) : 0.0f;
    block.each([&](int thread, NoRegisters&) {
      for (int64_t c = thread; c < logits.cols; c += kThreads) {
        float value = 0;
        if (counted && c == at)
          value = exp(target[row] - log_sum[row]) - off - on;  // exact, whatever was kept
        else if (counted)
          value = (z == nullptr ? widen(d[c]) * factor : exp(z[c] - log_sum[row])) - off;
        d[c] = narrow<T>(value);
      }
    });
  }
};

}  // namespace troupe::kernels::device
