// Kernels of kernels/cuda/optimizer.cpp. The same bits as on the CPU.
#pragma once

#include "kernels/cuda/device/exact_sum.hpp"

namespace troupe::kernels::device {

// 2^(shift - 40), what one unit of a block's mantissas is worth.
TROUPE_DEVICE double unit_of(uint8_t shift) {
  return std::bit_cast<double>(uint64_t(int64_t{shift} - kGrid + 1023) << 52);
}

// One f64 a block: sixteen lanes add every sixteenth element, then a fixed tree.
struct BlockSquareSums {
  static constexpr int kThreads = 256;
  static constexpr int kLanes = 16;
  static constexpr int kBlocks = kThreads / kLanes;
  struct Shared {
    double lanes[kThreads];
  };
  using Registers = NoRegisters;

  int64_t first = 0, blocks = 0;
  LayoutTable layout;
  const int32_t* mantissa = nullptr;  // from block `first`'s first element on, as `shift`
  int64_t offset = 0;                 // of that element
  const uint8_t* shift = nullptr;
  double* sums = nullptr;

  static int64_t grid(int64_t blocks) { return ceil_div(blocks, kBlocks); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    double* lanes = block.shared().lanes;
    block.each([&](int thread, NoRegisters&) {
      const int64_t index = block.index() * kBlocks + thread / kLanes;
      double sum = 0;
      if (index < blocks) {
        const FlatBlock found = layout.block(first + index);
        for (int i = thread % kLanes; i < found.count; i += kLanes) {
          const double m = double(mantissa[found.offset - offset + i]);
          sum += m * m;
        }
      }
      lanes[thread] = sum;
    });
    for (int half = kLanes / 2; half > 0; half /= 2)
      block.each([&](int thread, NoRegisters&) {
        if (thread % kLanes < half) lanes[thread] += lanes[thread + half];
      });
    block.each([&](int thread, NoRegisters&) {
      const int64_t index = block.index() * kBlocks + thread;
      if (thread >= kBlocks || index >= blocks) return;
      const double unit = unit_of(shift[index]);
      sums[index] = lanes[thread * kLanes] * unit * unit;
    });
  }
};

struct AdamWNumbers {
  double gradient_scale;
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float step;                      // learning rate / bias correction 1
  float inverse_root_correction2;  // 1 / sqrt(bias correction 2)
  float epsilon;
  float decay;  // 1 - learning rate * weight decay
};

// AdamW fused with dequantisation: a warp a block, eight elements a lane.
struct AdamWBlocks {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kLane = kBlockElements / kWarp;
  using Shared = NoShared;
  using Registers = NoRegisters;

  int64_t first = 0, blocks = 0;
  LayoutTable layout;
  const int32_t* mantissa = nullptr;  // from block `first`'s first element on, as `shift`
  int64_t offset = 0;                 // of that element
  const uint8_t* shift = nullptr;
  AdamWNumbers rule;
  float* weight = nullptr;  // the whole flat space, as the moments
  float* moment1 = nullptr;
  float* moment2 = nullptr;

  static int64_t grid(int64_t blocks) { return ceil_div(blocks, kWarps); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int thread, NoRegisters&) {
      const int64_t index = block.index() * kWarps + thread / kWarp;
      if (index >= blocks) return;
      const FlatBlock found = layout.block(first + index);
      const float factor = float(unit_of(shift[index]) * rule.gradient_scale);
      const int at = thread % kWarp * kLane;
      const int64_t element = found.offset + at;
      const bool aligned = element % 4 == 0 && (element - offset) % 4 == 0;
      if (aligned && at + kLane <= found.count) return update<kVector>(element, factor);
      for (int i = 0; i < kLane; ++i)
        if (at + i < found.count) update<1>(element + i, factor);
    });
  }

  template <int N>
  TROUPE_DEVICE void update(int64_t element, float factor) const {
    float w[N], m[N], v[N];
    int32_t g[N];
    load(weight + element, w);
    load(moment1 + element, m);
    load(moment2 + element, v);
    load_mantissas(mantissa + (element - offset), g);
    TROUPE_UNROLL for (int i = 0; i < N; ++i) {
      const float gradient = float(g[i]) * factor;
      m[i] = m[i] * rule.beta1 + gradient * rule.one_minus_beta1;
      v[i] = v[i] * rule.beta2 + gradient * gradient * rule.one_minus_beta2;
      const float root = square_root(v[i]) * rule.inverse_root_correction2 + rule.epsilon;
      w[i] = w[i] * rule.decay - m[i] * rule.step / root;
    }
    store(weight + element, w);
    store(moment1 + element, m);
    store(moment2 + element, v);
  }
  template <int N>
  static TROUPE_DEVICE void load_mantissas(const int32_t* from, int32_t (&to)[N]) {
    if constexpr (N == 1) {
      to[0] = *from;
    } else {
      using Piece = Sixteen<int32_t>;
      TROUPE_UNROLL for (int i = 0; i < N; i += Piece::kCount) {
        const Piece piece = piece_at<Piece>(from + i);
        TROUPE_UNROLL for (int j = 0; j < Piece::kCount; ++j) to[i + j] = piece.v[j];
      }
    }
  }
};

}  // namespace troupe::kernels::device
