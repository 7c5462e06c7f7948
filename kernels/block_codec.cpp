#include "kernels/block_codec.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/block_rounder.hpp"
#include "kernels/checks.hpp"
#include "kernels/cpu/loops/block_codec.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

// A block on the wire: two bytes, low bits first: width (7 bits; 0 means that all are zero), common trailing
// zeros (6 bits), and the packed values; a rounded total has one byte more, its shift.
constexpr int64_t kLanes = 8;
constexpr size_t kHeaderBytes = 2;
constexpr size_t kTotalHeaderBytes = 3;
constexpr int kMantissaBits = 32;
constexpr int64_t kStreamedElements = 4 << 20;  // larger totals are out of the caches when they are read
template <typename Value>
using BlockValues = std::array<Value, size_t(kBlockMax)>;

constexpr int64_t rows_of(int64_t count) {
  return (count + kLanes - 1) / kLanes;
}
constexpr size_t packed_bytes(int64_t rows, int width) {
  const int64_t bits = rows * width;
  return size_t(kLanes * (bits / 64 * 8 + (bits % 64 + 7) / 8));
}

const BlockCodecLoops& codec_loops() {
  return *loops_of(best_isa_level()).block_codec;
}

size_t bytes_max(const BlockLayout& layout, int64_t begin, int64_t end, size_t header, int width) {
  size_t bytes = 0;
  layout.for_each_segment(begin, end, [&](const BlockLayout::Segment& segment, int64_t first, int64_t stop) {
    const int64_t a_row = segment.blocks_a_row(), ends = stop / a_row - first / a_row;
    const auto of = [&](int64_t count) { return header + packed_bytes(rows_of(count), width); };
    bytes += size_t(ends) * of(segment.block(a_row - 1).count) + size_t(stop - first - ends) * of(kBlockMax);
  });
  return bytes;
}

// The bitwise or of a block's values, and of them with negative ones complemented.
struct Scan {
  uint64_t any = 0, magnitude = 0;
};

template <typename Value>
Scan scan(const PackLoops<Value>& loops, const Value* values, int64_t rows) {
  Scan result;
  loops.scan(values, rows, &result.any, &result.magnitude);
  return result;
}

// Writes header and values. Returns the end of what was written.
template <typename Value>
std::byte* encode_rows(const PackLoops<Value>& loops, const Value* values, int64_t rows, const Scan& of,
                       std::byte* out) {
  const int zeros = of.any == 0 ? 0 : std::countr_zero(of.any);
  const int width = of.any == 0 ? 0 : int(std::bit_width(of.magnitude)) + 1 - zeros;
  const unsigned header = unsigned(width) | unsigned(zeros) << 7;
  out[0] = std::byte(header & 0xff);
  out[1] = std::byte(header >> 8);
  out += kHeaderBytes;
  if (width == 0) return out;
  loops.pack(values, rows, width, zeros, reinterpret_cast<uint8_t*>(out));
  return out + packed_bytes(rows, width);
}

// Calls encode(values, rows) with `count` values, padded with zeros to whole rows.
template <typename Value, typename Encode>
std::byte* in_rows(const Value* values, int64_t count, Encode encode) {
  const int64_t rows = rows_of(count);
  if (count % kLanes == 0) return encode(values, rows);
  BlockValues<Value> padded;
  std::fill_n(std::copy_n(values, count, padded.begin()), rows * kLanes - count, Value{0});
  return encode(padded.data(), rows);
}

template <typename Value>
std::byte* encode_values(const PackLoops<Value>& loops, const Value* values, int64_t count, std::byte* out) {
  return in_rows(values, count, [&](const Value* padded, int64_t rows) {
    return encode_rows(loops, padded, rows, scan(loops, padded, rows), out);
  });
}

// Reads blocks front to back and never beyond the end.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  struct Header {
    int width;
    int zeros;
  };
  Header header(int64_t block, int width_max) {
    const std::span<const std::byte> two = take(kHeaderBytes, block);
    const unsigned bits = std::to_integer<unsigned>(two[0]) | std::to_integer<unsigned>(two[1]) << 8;
    const Header header{int(bits & 0x7f), int(bits >> 7 & 0x3f)};
    if (bits >> 13 != 0 || header.width + header.zeros > width_max ||
        (header.width == 0 && header.zeros != 0))
      throw error(ErrorKind::corrupt,
                  "packed block {} claims {} bits and {} trailing zeros, flags {}: not an encoding", block,
                  header.width, header.zeros, bits >> 13);
    return header;
  }
  std::span<const std::byte> take(size_t count, int64_t block) {
    if (count > bytes_.size() - at_)
      throw error(ErrorKind::corrupt, "packed block {} needs {} bytes, {} are left of {}", block, count,
                  bytes_.size() - at_, bytes_.size());
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }
  void finish() const {
    if (at_ != bytes_.size())
      throw error(ErrorKind::corrupt, "{} bytes are left after the last packed block of {}",
                  bytes_.size() - at_, bytes_.size());
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

const uint8_t* packed(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

// Unpack(bytes, rows, width, zeros, values) writes whole rows.
template <typename Value, typename Unpack>
void decode_values(Reader& reader, Unpack unpack, int64_t index, int64_t count, int width_max,
                   Value* values) {
  const int64_t rows = rows_of(count);
  const auto [width, zeros] = reader.header(index, width_max);
  if (width == 0) {
    std::fill_n(values, count, Value{0});
    return;
  }
  const uint8_t* from = packed(reader.take(packed_bytes(rows, width), index));
  if (count % kLanes == 0) return unpack(from, rows, width, zeros, values);
  BlockValues<Value> padded;
  unpack(from, rows, width, zeros, padded.data());
  std::copy_n(padded.begin(), count, values);
}

// Calls visit(index, block, sum) for each block, with what is encoded added to `values`.
template <typename Visit>
void for_each_sum(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const int64_t> values,
                  std::span<const std::byte> bytes, Visit visit) {
  TROUPE_CHECK(int64_t(values.size()) == layout.elements_in(begin, end), "{} values for {} elements",
               values.size(), layout.elements_in(begin, end));
  const BlockCodecLoops& loops = codec_loops();
  Reader reader(bytes);
  const int64_t* own = values.data();
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    const int64_t rows = rows_of(block.count);
    const auto [width, zeros] = reader.header(index, 64);
    BlockValues<int64_t> sum;
    if (width == 0) {
      visit(index, block, own);
    } else {
      const uint8_t* from = packed(reader.take(packed_bytes(rows, width), index));
      if (block.count % kLanes == 0) {
        loops.unpack_add(from, rows, width, zeros, own, sum.data());
      } else {
        std::fill_n(std::copy_n(own, block.count, sum.begin()), rows * kLanes - block.count, 0);
        loops.unpack_add(from, rows, width, zeros, sum.data(), sum.data());
      }
      visit(index, block, sum.data());
    }
    own += block.count;
  });
  reader.finish();
}

void check_room(size_t bytes, size_t needed) {
  TROUPE_CHECK(bytes >= needed, "room for {} bytes", bytes);
}

}  // namespace

size_t encoded_bytes_max(const BlockLayout& layout, int64_t begin, int64_t end) {
  return bytes_max(layout, begin, end, kHeaderBytes, 64);
}

size_t encoded_total_bytes_max(const BlockLayout& layout, int64_t begin, int64_t end) {
  return bytes_max(layout, begin, end, kTotalHeaderBytes, kMantissaBits);
}

size_t encode_blocks(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const int64_t> values,
                     std::span<std::byte> out) {
  TROUPE_CHECK(int64_t(values.size()) == layout.elements_in(begin, end), "{} values for {} elements",
               values.size(), layout.elements_in(begin, end));
  check_room(out.size(), encoded_bytes_max(layout, begin, end));
  const BlockCodecLoops& loops = codec_loops();
  const int64_t* from = values.data();
  std::byte* to = out.data();
  layout.for_each(begin, end, [&](int64_t, BlockLayout::Block block) {
    to = encode_values(loops.sums, from, block.count, to);
    from += block.count;
  });
  return size_t(to - out.data());
}

void decode_blocks(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const std::byte> bytes,
                   std::span<int64_t> values) {
  TROUPE_CHECK(int64_t(values.size()) == layout.elements_in(begin, end), "{} values for {} elements",
               values.size(), layout.elements_in(begin, end));
  const BlockCodecLoops& loops = codec_loops();
  Reader reader(bytes);
  int64_t* to = values.data();
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    decode_values(reader, loops.sums.unpack, index, block.count, 64, to);
    to += block.count;
  });
  reader.finish();
}

size_t encode_sum(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const int64_t> values,
                  std::span<const std::byte> bytes, std::span<std::byte> out) {
  check_room(out.size(), encoded_bytes_max(layout, begin, end));
  const BlockCodecLoops& loops = codec_loops();
  std::byte* to = out.data();
  for_each_sum(layout, begin, end, values, bytes, [&](int64_t, BlockLayout::Block block, const int64_t* sum) {
    to = encode_values(loops.sums, sum, block.count, to);
  });
  return size_t(to - out.data());
}

size_t encode_total(const BlockLayout& layout, int64_t begin, int64_t end, const RoundedTotal& total,
                    std::span<std::byte> out) {
  check_total(layout, total);
  check_room(out.size(), encoded_total_bytes_max(layout, begin, end));
  const BlockCodecLoops& loops = codec_loops();
  std::byte* to = out.data();
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    *to++ = std::byte(total.shift[size_t(index)]);
    to = encode_values(loops.totals, total.mantissa.data() + block.offset, block.count, to);
  });
  return size_t(to - out.data());
}

size_t encode_rounded_sum(const BlockLayout& layout, int64_t begin, int64_t end,
                          std::span<const int64_t> values, std::span<const std::byte> bytes,
                          const RoundOptions& rounding, RoundedTotal& total, std::span<std::byte> out) {
  check_total(layout, total);
  check_room(out.size(), encoded_total_bytes_max(layout, begin, end));
  const BlockCodecLoops& loops = codec_loops();
  const BlockRounder rounder(rounding);
  std::byte* to = out.data();
  for_each_sum(
      layout, begin, end, values, bytes, [&](int64_t index, BlockLayout::Block block, const int64_t* sum) {
        const RoundedBlock rounded = rounder.round(index, block, sum, total);
        *to++ = std::byte(rounded.shift);
        to = in_rows(total.mantissa.data() + block.offset, block.count,
                     [&](const int32_t* padded, int64_t rows) {
                       return encode_rows(loops.totals, padded, rows, {rounded.any, rounded.magnitude}, to);
                     });
      });
  return size_t(to - out.data());
}

void decode_total(const BlockLayout& layout, int64_t begin, int64_t end, std::span<const std::byte> bytes,
                  RoundedTotal& total) {
  check_total(layout, total);
  const BlockCodecLoops& loops = codec_loops();
  const bool keeps = layout.elements() < kStreamedElements;
  const auto unpack = [&](const uint8_t* from, int64_t rows, int width, int zeros, int32_t* values) {
    const bool aligned = reinterpret_cast<uintptr_t>(values) % 16 == 0;
    (keeps || !aligned ? loops.totals.unpack : loops.stream_total)(from, rows, width, zeros, values);
  };
  Reader reader(bytes);
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    const auto shift = std::to_integer<uint8_t>(reader.take(1, index)[0]);
    if (shift > 62)
      throw error(ErrorKind::corrupt, "packed block {} claims a shift of {}, beyond 62", index, shift);
    total.shift[size_t(index)] = shift;
    decode_values(reader, unpack, index, block.count, kMantissaBits, total.mantissa.data() + block.offset);
  });
  reader.finish();
  if (!keeps) loops.fence();
}

}  // namespace troupe::kernels
