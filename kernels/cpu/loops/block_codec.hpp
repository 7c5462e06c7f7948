// Bit packing of rows of eight integers, lane by lane: each lane is a stream of `width` bits a row, lowest
// bits first, its words of 64 bits interleaved with those of the other lanes; what is left of the last word
// goes out as whole bytes, lane after lane. The same bytes at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

// For integers of 64 bits (partial sums) or 32 (rounded totals).
template <typename Value>
struct PackLoops {
  // The bitwise or of all values, and of all values with negative ones complemented. `rows` of eight.
  void (*scan)(const Value* values, int64_t rows, uint64_t* any, uint64_t* magnitude);
  // Packs (value >> zeros) in `width` bits, 1..64. Writes packed_bytes(rows, width).
  void (*pack)(const Value* values, int64_t rows, int width, int zeros, uint8_t* bytes);
  // Overwrites `values`.
  void (*unpack)(const uint8_t* bytes, int64_t rows, int width, int zeros, Value* values);
};

struct BlockCodecLoops {
  PackLoops<int64_t> sums;
  PackLoops<int32_t> totals;
  // totals.unpack past the caches, for values that are read much later: to a multiple of 16 bytes. Before
  // another thread is told of them, fence() must be called.
  void (*stream_total)(const uint8_t* bytes, int64_t rows, int width, int zeros, int32_t* values);
  void (*fence)();
  // values = addends + what was packed.
  void (*unpack_add)(const uint8_t* bytes, int64_t rows, int width, int zeros, const int64_t* addends,
                     int64_t* values);
};

TROUPE_DECLARE_LOOPS(BlockCodecLoops, block_codec_loops)

}  // namespace troupe::kernels
