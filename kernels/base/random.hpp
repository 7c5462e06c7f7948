// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A number is a pure function of (key, counter), so any thread or node draws the same one without
// having drawn those before it. Header-only and free of libm: also compiled for devices.
#pragma once

#include <array>
#include <cstdint>

namespace troupe {

struct Philox {
  uint32_t key0 = 0;
  uint32_t key1 = 0;

  // Four independent 32-bit numbers for one counter.
  constexpr std::array<uint32_t, 4> operator()(uint64_t low, uint64_t high = 0) const {
    std::array<uint32_t, 4> c{uint32_t(low), uint32_t(low >> 32), uint32_t(high), uint32_t(high >> 32)};
    uint32_t k0 = key0, k1 = key1;
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
      c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    return c;
  }
};

// Mixes two words into one (the finaliser of SplitMix64, Steele et al. 2014); used to derive keys.
constexpr uint64_t mix64(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9E3779B97F4A7C15ull * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

constexpr Philox philox_from(uint64_t key) { return Philox{uint32_t(key), uint32_t(key >> 32)}; }

// A permutation of [0, size) in constant time and memory: a 6-round Feistel network over the next even number of
// bits, walked until it falls inside (Black & Rogaway, "Ciphers with arbitrary finite domains", 2002).
class Permutation {
 public:
  Permutation(uint64_t key, uint64_t size);
  uint64_t operator()(uint64_t index) const;  // REQUIRES index < size
  uint64_t size() const { return size_; }

 private:
  Philox philox_;
  uint64_t size_;
  uint32_t half_bits_;
};

}  // namespace troupe
