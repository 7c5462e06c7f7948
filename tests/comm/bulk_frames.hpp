// Frames that a test knows by their number.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "comm/bulk.hpp"
#include "kernels/base/random.hpp"

namespace troupe::test {

inline std::vector<std::byte> random_payload(size_t bytes, uint64_t seed) {
  const Philox philox = philox_from(seed);
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = std::byte(philox(i)[0]);
  return out;
}

inline comm::FrameHead head_of(uint32_t index) {
  return {5, -7, index, index * 2, {1, 0, uint64_t{1} << 63}};
}

inline bool same(const comm::Frame& frame, const comm::FrameHead& head,
                 const std::vector<std::byte>& payload) {
  return frame.head.type == head.type && frame.head.step == head.step && frame.head.bucket == head.bucket &&
         frame.head.chunk == head.chunk && frame.head.slots == head.slots &&
         frame.payload.size() == payload.size() &&
         std::equal(payload.begin(), payload.end(), frame.payload.begin());
}

}  // namespace troupe::test
