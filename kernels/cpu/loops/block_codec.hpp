// Bit packing of rows of eight 64-bit integers, lane by lane: each lane is a stream of `width` bits a row,
// lowest bits first, its words of 64 bits interleaved with those of the other lanes; what is left of the last
// word goes out as whole bytes, lane after lane. The same bytes at every level.
#pragma once

#include "kernels/cpu/loops/loops.hpp"

namespace troupe::kernels {

struct BlockCodecLoops {
  // The bitwise or of all values, and of all values with negative ones complemented. `rows` of eight.
  void (*scan)(const int64_t* values, int64_t rows, uint64_t* any, uint64_t* magnitude);
  // Packs (value >> zeros) in `width` bits, 1..64. Writes packed_bytes(rows, width).
  void (*pack)(const int64_t* values, int64_t rows, int width, int zeros, uint8_t* bytes);
  // Overwrites `values`, or adds to them.
  void (*unpack)(const uint8_t* bytes, int64_t rows, int width, int zeros, int64_t* values);
  void (*unpack_add)(const uint8_t* bytes, int64_t rows, int width, int zeros, int64_t* values);
};

TROUPE_DECLARE_LOOPS(BlockCodecLoops, block_codec_loops)

}  // namespace troupe::kernels
