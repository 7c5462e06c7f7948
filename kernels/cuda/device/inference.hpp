// Kernels of kernels/cuda/inference.cpp.
#pragma once

#include "kernels/cuda/device/elementwise.hpp"
#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

// One block a row of logits; the k largest are found one after another: each the largest (lowest id among
// equals) of those behind the one before it. O(k V) a row.
struct LogSoftmaxTopK {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  struct Shared {
    uint64_t best[kWarps];
    float sums[kWarps];
  };
  struct Registers {
    uint64_t best;
    float sum;
  };

  int64_t cols = 0, k = 0;
  Rows<const float> logits;
  Rows<float> values;
  Rows<int32_t> ids;

  // Larger for larger logits, and for lower ids among equals; NaN counts as minus infinity. Never 0.
  static TROUPE_DEVICE uint64_t rank(float logit, int64_t id) {
    const float x = logit == logit ? (logit == 0 ? 0.0f : logit) : minus_infinity();
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return uint64_t{ordered} << 32 | (0xffffffffu - uint32_t(id));
  }
  static TROUPE_DEVICE int32_t id_of(uint64_t r) { return int32_t(0xffffffffu - uint32_t(r)); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t row = block.index();
    const float* z = logits.row(row);
    Shared& shared = block.shared();
    uint64_t below = ~uint64_t{0};
    for (int64_t i = 0; i < k; ++i) {
      block.each([&](int thread, Registers& own) {
        own.best = 0;
        for (int64_t c = thread; c < cols; c += kThreads) {
          const uint64_t r = rank(z[c], c);
          if (r < below && r > own.best) own.best = r;
        }
      });
      block.warp_max([](int, Registers& own) -> uint64_t& { return own.best; });
      block.each([&](int thread, Registers& own) {
        if (thread % kWarp == 0) shared.best[thread / kWarp] = own.best;
      });
      below = 0;
      for (int w = 0; w < kWarps; ++w) below = larger(shared.best[w], below);
      const int32_t id = id_of(below);
      block.each([&](int thread, Registers&) {
        if (thread != 0) return;
        values.row(row)[i] = z[id] == z[id] ? z[id] : minus_infinity();
        ids.row(row)[i] = id;
      });
    }
    subtract_log_sum(block, row);
  }

  template <typename Block>
  TROUPE_DEVICE void subtract_log_sum(Block& block, int64_t row) const {
    const float* z = logits.row(row);
    const float shift = values.row(row)[0];
    Shared& shared = block.shared();
    block.each([&](int thread, Registers& own) {
      own.sum = 0;
      for (int64_t c = thread; c < cols; c += kThreads) own.sum += exp(z[c] - shift);
    });
    block.warp_sum([](int, Registers& own) -> float& { return own.sum; });
    block.each([&](int thread, Registers& own) {
      if (thread % kWarp == 0) shared.sums[thread / kWarp] = own.sum;
    });
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += shared.sums[w];
    const float log_sum = shift + log(total) + (total - total);
    block.each([&](int thread, Registers&) {
      for (int64_t i = thread; i < k; i += kThreads) values.row(row)[i] = values.row(row)[i] - log_sum;
    });
  }
};

}  // namespace troupe::kernels::device
