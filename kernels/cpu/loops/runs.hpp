// Loops over a row sixteen elements at a time, the rest of it masked, with or without dropout. Bodies are
// generic lambdas (element, lanes, ...), where `lanes` is All or Some and goes to load and store. For sources
// compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/dropout.hpp"
#include "kernels/cpu/loops/vec.hpp"

#define TROUPE_BODY __attribute__((always_inline))

namespace troupe::kernels::TROUPE_ISA {

struct All {};
struct Some {
  int64_t count;  // 1..15
};

template <typename T>
TROUPE_INLINE Vec load(const T* p, All) {
  return load(p);
}
template <typename T>
TROUPE_INLINE Vec load(const T* p, Some lanes) {
  return load(p, lanes.count);
}
template <typename T>
TROUPE_INLINE void store(T* p, Vec v, All) {
  store(p, v);
}
template <typename T>
TROUPE_INLINE void store(T* p, Vec v, Some lanes) {
  store(p, v, lanes.count);
}
// Zero in the lanes beyond the row.
TROUPE_INLINE Vec only(Vec v, All) {
  return v;
}
TROUPE_INLINE Vec only(Vec v, Some lanes) {
  return keep_where(first_lanes(lanes.count), v);
}

// body(element, lanes) for a row of `count` elements.
template <typename Body>
TROUPE_INLINE void for_row(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, All{});
  if (i < count) body(i, Some{count - i});
}

// body(element, lanes, factors): dropout's factors of the elements, whose first has counter `first`.
template <typename Body>
TROUPE_INLINE void for_row_dropped(const DropoutMask& mask, uint64_t first, int64_t count, Body&& body) {
  if (mask.threshold == 0) {
    for_row(count, [&](int64_t i, auto lanes) TROUPE_BODY { body(i, lanes, broadcast(mask.scale)); });
    return;
  }
  constexpr int64_t kRun = 1024;
  uint32_t buffer[random_words_room(kRun)];
  for (int64_t run = 0; run < count; run += kRun) {
    const int64_t length = count - run < kRun ? count - run : kRun;
    const uint32_t* words = random_words(mask.key, first + uint64_t(run), length, buffer);
    for_row(length, [&](int64_t i, auto lanes)
                        TROUPE_BODY { body(run + i, lanes, dropout_factors(mask, words + i)); });
  }
}

}  // namespace troupe::kernels::TROUPE_ISA
