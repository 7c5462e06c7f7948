// Lossless packing of blocks for the wire. Each block is a small header and its integers without their common
// trailing zeros, in the least width that holds them; a block of zeros is its header alone. Decoding trusts
// nothing: a header that no encoder writes, and bytes that end early or late, throw Error(corrupt), and
// nothing outside the given spans is touched (what was decoded before the fault stays in the output). Other
// bytes decode to some integers, also where the width is not the least: that they came whole is for a
// checksum to say. Pure functions, for any thread; throughput is a few GB/s of 64-bit integers a thread. What
// is encoded of given integers is always the same, so equal sums have equal bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/exact_sum.hpp"

namespace troupe::kernels {

// Upper bounds of the bytes that blocks [begin, end) can take, whatever their values.
size_t encoded_bytes_max(const BlockLayout& layout, int64_t begin, int64_t end);
size_t encoded_total_bytes_max(const BlockLayout& layout, int64_t begin, int64_t end);

// Partial sums. `values` holds the elements of blocks [begin, end) and nothing else:
// layout.elements_in(begin, end). Returns the bytes written. REQUIRES out.size() >= encoded_bytes_max(layout,
// begin, end).
size_t encode_blocks(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const int64_t> values,
                     std::span<std::byte> out);
// `bytes` is exactly what one encode_blocks call wrote for the same blocks; overwrites `values`.
void decode_blocks(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const std::byte> bytes,
                   std::span<int64_t> values);
// The encoding of the sum of `values` and what `bytes` encode (modulo 2^64: bounds on sums are the flags'
// business), a block at a time.
size_t encode_sum(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const int64_t> values,
                  std::span<const std::byte> bytes, std::span<std::byte> out);

// Rounded totals: blocks [begin, end) of `total`, which has been resized to the layout; mantissas and shifts.
size_t encode_total(const BlockLayout& layout, int64_t begin, int64_t end, const RoundedTotal& total,
                    std::span<std::byte> out);
void decode_total(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const std::byte> bytes,
                  RoundedTotal& total);

// The same sum as in encode_sum, which is now whole: rounded into `total` as by round_total, and encoded.
size_t encode_rounded_sum(const BlockLayout& layout, int64_t begin, int64_t end,
                          std::span<const int64_t> values, std::span<const std::byte> bytes,
                          const RoundOptions& rounding, RoundedTotal& total, std::span<std::byte> out);

}  // namespace troupe::kernels
