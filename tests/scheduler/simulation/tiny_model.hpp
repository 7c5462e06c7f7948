// A real model that trains in microseconds, the load of the simulator: linear regression on made-up samples,
// gradients summed as integers on a fixed grid. Its digest after every step, computed by one process, is the
// oracle.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "scheduler/protocol.hpp"

namespace troupe::simulation {

inline constexpr size_t kWidth = 12;
using Integers = std::array<int64_t, kWidth>;

inline uint64_t mix(uint64_t x) {  // SplitMix64 (Steele et al. 2014)
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

struct State {
  int64_t step = 0;
  std::array<float, kWidth> weights{};
  uint64_t chain = 0;
  std::string digest() const { return std::to_string(step) + ":" + std::to_string(chain); }
};

// The gradient of one slot at these weights, in units of 2^-20.
inline Integers gradient(const State& state, uint32_t slot) {
  std::array<float, kWidth> features{};
  float predicted = 0, wanted = 0;
  for (size_t i = 0; i < kWidth; ++i) {
    const uint64_t word = mix(mix(uint64_t(state.step) * 4096 + slot) + i);
    features[i] = float(int32_t(uint32_t(word))) * 0x1p-31f;
    predicted += state.weights[i] * features[i];
    wanted += float(i) * 0.25f * features[i];
  }
  Integers sum{};
  for (size_t i = 0; i < kWidth; ++i) sum[i] = std::llrint((predicted - wanted) * features[i] * 0x1p20f);
  return sum;
}

inline State apply(State state, const Integers& total, uint32_t slots) {
  for (size_t i = 0; i < kWidth; ++i) {
    state.weights[i] -= 0.3f * (float(total[i]) * 0x1p-20f) / float(slots);
    uint32_t bits = 0;
    std::memcpy(&bits, &state.weights[i], sizeof bits);
    state.chain = mix(state.chain ^ bits);
  }
  ++state.step;
  return state;
}

// The digests of x(0) .. x(steps) from one process.
inline std::vector<std::string> oracle(const scheduler::SlotPlan& plan) {
  State state;
  std::vector<std::string> digests{state.digest()};
  for (int64_t step = 0; step < plan.steps; ++step) {
    Integers total{};
    for (uint32_t slot = 0; slot < plan.slots(step); ++slot) {
      const Integers one = gradient(state, slot);
      for (size_t i = 0; i < kWidth; ++i) total[i] += one[i];
    }
    state = apply(state, total, plan.slots(step));
    digests.push_back(state.digest());
  }
  return digests;
}

}  // namespace troupe::simulation
