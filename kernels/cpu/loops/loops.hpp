// What the loops compiled for each instruction-set level and their callers share: plain structs of values and
// of function pointers, nothing with inline functions. A group of loops has a header that declares its table
// and ends with TROUPE_DECLARE_LOOPS, and one source in which each level defines the table in its own
// namespace (see convert.*).
#pragma once

#include <stdint.h>

namespace troupe::kernels {

struct DropoutMask {  // made by mask_of() in kernels/cpu/stream.hpp
  uint64_t key;
  uint32_t threshold;  // 0: nothing is dropped, no word is drawn
  float scale;
};

}  // namespace troupe::kernels

#define TROUPE_DECLARE_LOOPS(Table, name) \
  namespace v2 {                          \
  extern const Table name;                \
  }                                       \
  namespace v3 {                          \
  extern const Table name;                \
  }                                       \
  namespace v4 {                          \
  extern const Table name;                \
  }
