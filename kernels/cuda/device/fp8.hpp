// The two formats of fp8 (Micikevicius et al. 2022, "FP8 formats for deep learning") and the kernels of
// kernels/cuda/fp8.cpp. A tensor has one scale, from its own largest magnitude: first each block finds the
// largest of its elements, then each block finds the largest of those again and encodes. No atomics.
#pragma once

#include "kernels/cuda/device/elementwise.hpp"
#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

// Sign, exponent, mantissa. E4M3 has no infinity and one NaN a sign; E5M2 is that of IEEE.
struct E4M3 {
  static constexpr int kMantissa = 3, kBias = 7;
  static constexpr float kLargest = 448;
  static constexpr uint8_t kInfinity = 0xff;  // none: no magnitude has these bits
  static constexpr uint8_t kFirstNan = 0x7f;
};
struct E5M2 {
  static constexpr int kMantissa = 2, kBias = 15;
  static constexpr float kLargest = 57344;
  static constexpr uint8_t kInfinity = 0x7c;
  static constexpr uint8_t kFirstNan = 0x7d;
};

constexpr float two_to(int exponent) {
  return std::bit_cast<float>(uint32_t(exponent + 127) << 23);
}
TROUPE_DEVICE float magnitude_of(float x) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu);
}

// To nearest, ties to even; beyond the largest it is the largest, infinity too; NaN stays NaN.
template <typename Format>
TROUPE_DEVICE uint8_t encode(float x) {
  constexpr int kDropped = 23 - Format::kMantissa;
  const uint32_t sign = std::bit_cast<uint32_t>(x) >> 24 & 0x80u;
  const float magnitude = magnitude_of(x);
  if (magnitude != magnitude) return uint8_t(sign | 0x7fu);
  const float held = smaller(magnitude, Format::kLargest);
  if (held < two_to(1 - Format::kBias))  // denormals of the format, and zero
    return uint8_t(sign | uint32_t(nearest(held * two_to(Format::kBias - 1 + Format::kMantissa))));
  const uint32_t bits = std::bit_cast<uint32_t>(held);
  const uint32_t rounded = bits + ((1u << (kDropped - 1)) - 1) + (bits >> kDropped & 1u);
  return uint8_t(sign | ((rounded >> kDropped) - (uint32_t(127 - Format::kBias) << Format::kMantissa)));
}

template <typename Format>
TROUPE_DEVICE float decode(uint8_t code) {
  const uint32_t magnitude = code & 0x7fu, sign = uint32_t(code & 0x80u) << 24;
  const uint32_t exponent = magnitude >> Format::kMantissa;
  const uint32_t mantissa = magnitude & ((1u << Format::kMantissa) - 1);
  uint32_t bits = 0;
  if (magnitude == Format::kInfinity)
    bits = 0x7f800000u;
  else if (magnitude >= Format::kFirstNan)
    bits = 0x7fc00000u;
  else if (exponent == 0)
    bits = std::bit_cast<uint32_t>(float(mantissa) * two_to(1 - Format::kBias - Format::kMantissa));
  else
    bits = (exponent + uint32_t(127 - Format::kBias)) << 23 | mantissa << (23 - Format::kMantissa);
  return std::bit_cast<float>(bits | sign);
}

// x * up is encoded; a code's value * down is about x.
struct Fp8Scale {
  float up, down;
};
// `largest` is the bits of the largest magnitude of a tensor. One that is not finite makes every product so.
template <typename Format>
TROUPE_DEVICE Fp8Scale fp8_scale(uint32_t largest) {
  const float smallest = two_to(-100);  // zeros, and what is as good as they are
  float held = std::bit_cast<float>(largest);
  if (held < smallest) held = smallest;
  return {Format::kLargest / held, held / Format::kLargest};
}

// What the kernels share: 256 threads that find one largest among them.
struct LargestOfBlock {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int64_t kPartialsMax = kThreads;  // so that each thread of the second kernel reads one
  struct Registers {
    uint32_t largest;
  };

  // Makes every thread's `largest` the block's; `of_warp` is shared memory for kWarps of them.
  template <typename Block>
  static TROUPE_DEVICE void reduce(Block& block, uint32_t* of_warp) {
    block.warp_max([](int, Registers& own) -> uint32_t& { return own.largest; });
    block.each([&](int thread, Registers& own) {
      if (thread % kWarp == 0) of_warp[thread / kWarp] = own.largest;
    });
    block.each([&](int, Registers& own) {
      TROUPE_UNROLL for (int i = 0; i < kWarps; ++i) own.largest = larger(of_warp[i], own.largest);
    });
  }
};

// partial[block] = the bits of the largest magnitude of the block's elements; a NaN is larger than all.
template <typename T, int N>
struct LargestMagnitude : LargestOfBlock {
  static constexpr int64_t kTile = int64_t{kThreads} * N;
  struct Shared {
    uint32_t of_warp[kWarps];
  };

  Shape shape;  // cols is a multiple of N
  Rows<const T> x;
  uint32_t* partial = nullptr;

  static int64_t blocks(const Shape& shape) {
    return smaller(ceil_div(shape.rows * shape.cols, kTile), kPartialsMax);
  }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t step = smaller(ceil_div(shape.size(), kTile), kPartialsMax) * kTile;
    block.each([&](int thread, Registers& own) {
      own.largest = 0;
      for (int64_t at = block.index() * kTile + int64_t{thread} * N; at < shape.size(); at += step) {
        const int64_t row = shape.rows == 1 ? 0 : at / shape.cols;
        float v[N];
        load(x.row(row) + (at - row * shape.cols), v);
        TROUPE_UNROLL for (int i = 0; i < N; ++i) own.largest =
            larger(std::bit_cast<uint32_t>(v[i]) & 0x7fffffffu, own.largest);
      }
    });
    reduce(block, block.shared().of_warp);
    block.each([&](int thread, Registers& own) {
      if (thread == 0) partial[block.index()] = own.largest;
    });
  }
};

// What LargestMagnitude left, and where the scale goes.
struct Magnitudes {
  const uint32_t* partial = nullptr;
  int64_t count = 0;
  float* down = nullptr;

  // The scale, for every thread of a block.
  template <typename Format, typename Block>
  TROUPE_DEVICE void find(Block& block, uint32_t* of_warp) const {
    block.each([&](int thread, LargestOfBlock::Registers& own) {
      own.largest = thread < count ? partial[thread] : 0;
    });
    LargestOfBlock::reduce(block, of_warp);
    block.each([&](int thread, LargestOfBlock::Registers& own) {
      if (block.index() == 0 && thread == 0) *down = fp8_scale<Format>(own.largest).down;
    });
  }
};

template <int N>
struct alignas(N) Codes {
  uint8_t v[N];
};

// codes (rows, cols), contiguous = x / scale.
template <typename T, typename Format, int N>
struct Quantise : LargestOfBlock {
  static constexpr int kPieces = 4;  // of a thread
  static constexpr int64_t kPiece = int64_t{kThreads} * N, kTile = kPieces * kPiece;
  struct Shared {
    uint32_t of_warp[kWarps];
  };

  Shape shape;  // cols is a multiple of N
  Rows<const T> x;
  Magnitudes magnitudes;
  uint8_t* codes = nullptr;  // at a multiple of N

  static int64_t blocks(const Shape& shape) { return ceil_div(shape.rows * shape.cols, kTile); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    magnitudes.find<Format>(block, block.shared().of_warp);
    block.each([&](int thread, Registers& own) {
      const float up = fp8_scale<Format>(own.largest).up;
      for (int piece = 0; piece < kPieces; ++piece) {
        const int64_t at = block.index() * kTile + piece * kPiece + int64_t{thread} * N;
        if (at >= shape.size()) return;
        const int64_t row = shape.rows == 1 ? 0 : at / shape.cols;
        float v[N];
        load(x.row(row) + (at - row * shape.cols), v);
        Codes<N> c;
        TROUPE_UNROLL for (int i = 0; i < N; ++i) c.v[i] = encode<Format>(v[i] * up);
        piece_at<Codes<N>>(codes + at) = c;
      }
    });
  }
};

// codes (rows, cols) and transposed (cols, rows), both contiguous = x / scale, tile by tile.
template <typename Format>
struct QuantiseBothWays : LargestOfBlock {
  static constexpr int kSide = 64;
  struct Shared {
    uint32_t of_warp[kWarps];
    uint8_t tile[kSide][kSide + 4];  // a column's elements lie in different banks
  };

  Shape shape;
  Rows<const float> x;
  Magnitudes magnitudes;
  uint8_t* codes = nullptr;
  uint8_t* transposed = nullptr;

  static int64_t blocks(const Shape& shape) {
    return ceil_div(shape.rows, kSide) * ceil_div(shape.cols, kSide);
  }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t across = ceil_div(shape.cols, kSide);
    const int64_t row0 = block.index() / across * kSide, col0 = block.index() % across * kSide;
    magnitudes.find<Format>(block, block.shared().of_warp);
    block.each([&](int thread, Registers& own) {
      const float up = fp8_scale<Format>(own.largest).up;
      for (int i = thread; i < kSide * kSide; i += kThreads) {
        const int r = i / kSide, c = i % kSide;
        if (row0 + r >= shape.rows || col0 + c >= shape.cols) continue;
        const uint8_t code = encode<Format>(x.row(row0 + r)[col0 + c] * up);
        codes[(row0 + r) * shape.cols + col0 + c] = code;
        block.shared().tile[r][c] = code;
      }
    });
    block.each([&](int thread, Registers&) {
      for (int i = thread; i < kSide * kSide; i += kThreads) {
        const int c = i / kSide, r = i % kSide;
        if (row0 + r >= shape.rows || col0 + c >= shape.cols) continue;
        transposed[(col0 + c) * shape.rows + row0 + r] = block.shared().tile[r][c];
      }
    });
  }
};

}  // namespace troupe::kernels::device
