// What every kernel is written with: code that nvcc compiles for the device and g++, without CUDA's headers,
// for the host, where the tests run it thread by thread. Device code is compiled with --fmad=false and
// -ftz=true, so that plain arithmetic rounds as it does on a CPU stream.
//
// A kernel is a trivially copyable struct with its arguments as members, `kThreads`, the types Shared and
// Registers, and a call operator over a Block. The Block runs a phase for all threads of a block and ends it
// with a barrier: what a phase writes to Shared, the next may read. Its interface (launch.cuh has the
// device's, kernels/cuda/launch.hpp the host's):
//   index()                      which block of the grid this is
//   shared()                     the Shared of the block, uninitialised
//   each(f)                      f(thread, registers) for each thread, then a barrier
//   warp_sum(f), warp_max(f)     f(thread, registers) names a value; the 32 of a warp are reduced by a
//   butterfly
//                                (offsets 16, 8, 4, 2, 1) and every one becomes the result
//   quad_max(f), quad_sum(f), apart(f), load_matrices(f), multiply(f)    see mma.hpp
//   raise(flags, value)          *flags |= value, atomically (integers have no order)
// Every thread reaches every call: conditions around them are the same for the whole block.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <type_traits>

#if defined(__CUDACC__)
#define TROUPE_DEVICE __host__ __device__ __forceinline__
#define TROUPE_UNROLL _Pragma("unroll")
#else
#define TROUPE_DEVICE inline
#define TROUPE_UNROLL
#endif

namespace troupe::kernels::device {

constexpr int kWarp = 32;

struct NoShared {};
struct NoRegisters {};

// Rows of T, `stride` elements apart.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;

  TROUPE_DEVICE bool empty() const { return data == nullptr; }
  TROUPE_DEVICE T* row(int64_t r) const { return data + r * stride; }
};

template <typename T>
TROUPE_DEVICE T smaller(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
TROUPE_DEVICE T larger(T a, T b) {  // b when either is NaN
  return a > b ? a : b;
}
constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

TROUPE_DEVICE float minus_infinity() {
  return std::bit_cast<float>(0xff800000u);
}

// bf16 is kept as its bits. To nearest, ties to even; denormals become zero, NaN stays NaN.
TROUPE_DEVICE float widen(uint16_t x) {
  return std::bit_cast<float>(uint32_t(x) << 16);
}
TROUPE_DEVICE float widen(float x) {
  return x;
}
template <typename T>
TROUPE_DEVICE T narrow(float x);
template <>
TROUPE_DEVICE float narrow<float>(float x) {
  return x;
}
template <>
TROUPE_DEVICE uint16_t narrow<uint16_t>(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(bits >> 16 | 0x40u);
  if (magnitude < 0x00800000u) return uint16_t(bits >> 16 & 0x8000u);
  return uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// N consecutive elements: N is 1, or 8 at an address that is a multiple of 16, read in 16-byte pieces.
constexpr int kVector = 8;
template <typename T>
struct alignas(16) Sixteen {
  static constexpr int kCount = 16 / int(sizeof(T));
  T v[kCount];
};
// The piece at an address, which is a multiple of its size: a device faults where it is not, and so does the
// host.
template <typename Piece, typename T>
TROUPE_DEVICE auto& piece_at(T* address) {
#if !defined(__CUDACC__)
  if (reinterpret_cast<uintptr_t>(address) % alignof(Piece) != 0)
    throw std::logic_error("a misaligned vector");
#endif
  using Found = std::conditional_t<std::is_const_v<T>, const Piece, Piece>;
  return *reinterpret_cast<Found*>(address);
}

template <int N, typename T>
TROUPE_DEVICE void load(const T* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = widen(*from);
  } else {
    using Piece = Sixteen<T>;
    TROUPE_UNROLL for (int i = 0; i < N; i += Piece::kCount) {
      const Piece piece = piece_at<Piece>(from + i);
      TROUPE_UNROLL for (int j = 0; j < Piece::kCount; ++j) to[i + j] = widen(piece.v[j]);
    }
  }
}
template <int N, typename T>
TROUPE_DEVICE void store(T* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = narrow<T>(from[0]);
  } else {
    using Piece = Sixteen<T>;
    TROUPE_UNROLL for (int i = 0; i < N; i += Piece::kCount) {
      Piece piece;
      TROUPE_UNROLL for (int j = 0; j < Piece::kCount; ++j) piece.v[j] = narrow<T>(from[i + j]);
      piece_at<Piece>(to + i) = piece;
    }
  }
}

}  // namespace troupe::kernels::device
