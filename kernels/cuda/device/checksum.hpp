// Kernel of kernels/cuda/checksum.cpp: checksums of memory, a block of threads a piece. The sum over a
// piece's words of a mix of word and place, modulo 2^64: integers have no order, and a word that changes
// alone always changes the sum.
#pragma once

#include "kernels/cuda/device/portable.hpp"

namespace troupe::kernels::device {

struct MemoryPiece {
  const uint32_t* words = nullptr;
  int64_t count = 0;  // below 2^32
};

// The finaliser of SplitMix64 (Steele et al. 2014), which maps no two words of a place to one number.
TROUPE_DEVICE uint64_t mixed(uint32_t word, int64_t place) {
  uint64_t x = (uint64_t(place) << 32 | word) + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

struct ChecksumPieces {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  struct Shared {
    uint64_t warps[kWarps];
  };
  struct Registers {
    uint64_t sum;
  };

  const MemoryPiece* pieces = nullptr;
  uint64_t* sums = nullptr;  // one a piece

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int thread, Registers& own) {
      const MemoryPiece piece = pieces[block.index()];
      own.sum = 0;
      for (int64_t i = thread; i < piece.count; i += kThreads) own.sum += mixed(piece.words[i], i);
    });
    block.warp_sum([](int, Registers& own) -> uint64_t& { return own.sum; });
    block.each([&](int thread, Registers& own) {
      if (thread % kWarp == 0) block.shared().warps[thread / kWarp] = own.sum;
    });
    block.each([&](int thread, Registers&) {
      if (thread != 0) return;
      uint64_t sum = 0;
      for (int warp = 0; warp < kWarps; ++warp) sum += block.shared().warps[warp];
      sums[block.index()] = sum;
    });
  }
};

}  // namespace troupe::kernels::device
