#include "kernels/cpu/loops/block_codec.hpp"

#include "kernels/cpu/loops/wide.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr int kWordBits = 64;
constexpr int64_t kWordBytes = kWideLanes * 8;

TROUPE_INLINE Wide load_row(const int64_t* values, int64_t row) {
  return load_wide(values + row * kWideLanes);
}
TROUPE_INLINE Wide load_row(const int32_t* values, int64_t row) {
  return load_narrow(values + row * kWideLanes);
}
TROUPE_INLINE void store_row(int64_t* values, int64_t row, Wide v) {
  store_wide(values + row * kWideLanes, v);
}
TROUPE_INLINE void store_row(int32_t* values, int64_t row, Wide v) {
  store_narrow(values + row * kWideLanes, v);
}

template <typename Value>
void scan(const Value* values, int64_t rows, uint64_t* any, uint64_t* magnitude) {
  Wide all = broadcast_wide(0), top = all;
  for (int64_t row = 0; row < rows; ++row) {
    const Wide v = load_row(values, row);
    all = all | v;
    top = top | (v ^ negative(v));
  }
  *any = or_lanes(all);
  *magnitude = or_lanes(top);
}

template <typename Value>
void pack(const Value* values, int64_t rows, int width, int zeros, uint8_t* bytes) {
  const Wide mask = broadcast_wide(~uint64_t{0} >> (kWordBits - width));
  Wide word = broadcast_wide(0);
  int fill = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const Wide v = shift_right(load_row(values, row), zeros) & mask;
    word = word | shift_left(v, fill);
    fill += width;
    if (fill < kWordBits) continue;
    store_wide(bytes, word);
    bytes += kWordBytes;
    fill -= kWordBits;
    word = fill == 0 ? broadcast_wide(0) : shift_right(v, width - fill);
  }
  uint64_t lanes[kWideLanes];
  store_wide(lanes, word);
  const int rest = (fill + 7) / 8;
  for (int lane = 0; lane < kWideLanes; ++lane, bytes += rest)
    for (int byte = 0; byte < rest; ++byte) bytes[byte] = uint8_t(lanes[lane] >> (8 * byte));
}

// Calls put(row, values) for each row.
template <typename Put>
TROUPE_INLINE void unpack_rows(const uint8_t* bytes, int64_t rows, int width, int zeros, Put put) {
  const int64_t words = rows * width / kWordBits;
  const int rest = (int(rows * width % kWordBits) + 7) / 8;
  uint64_t lanes[kWideLanes] = {};
  for (int lane = 0; lane < kWideLanes; ++lane)
    for (int byte = 0; byte < rest; ++byte)
      lanes[lane] |= uint64_t(bytes[words * kWordBytes + lane * rest + byte]) << (8 * byte);
  const Wide last = load_wide(lanes);
  const auto word_at = [&](int64_t index) __attribute__((always_inline)) {
    return index < words ? load_wide(bytes + index * kWordBytes) : last;
  };

  const Wide mask = broadcast_wide(~uint64_t{0} >> (kWordBits - width));
  const Wide sign = broadcast_wide(uint64_t{1} << (width - 1));
  Wide word = word_at(0);
  int64_t next = 1;
  int used = 0;
  for (int64_t row = 0; row < rows; ++row) {
    Wide v = shift_right(word, used);
    used += width;
    if (used >= kWordBits) {
      used -= kWordBits;
      word = word_at(next++);
      if (used > 0) v = v | shift_left(word, width - used);
    }
    put(row, shift_left(((v & mask) ^ sign) - sign, zeros));
  }
}

template <typename Value>
void unpack(const uint8_t* bytes, int64_t rows, int width, int zeros, Value* values) {
  unpack_rows(
      bytes, rows, width,
      zeros, [&](int64_t row, Wide v) __attribute__((always_inline)) { store_row(values, row, v); });
}

void stream_total(const uint8_t* bytes, int64_t rows, int width, int zeros, int32_t* values) {
  unpack_rows(
      bytes, rows, width, zeros, [&](int64_t row, Wide v) __attribute__((always_inline)) {
        stream_narrow(values + row * kWideLanes, v);
      });
}

void fence() {
  _mm_sfence();
}

void unpack_add(const uint8_t* bytes, int64_t rows, int width, int zeros, const int64_t* addends,
                int64_t* values) {
  unpack_rows(
      bytes, rows, width, zeros, [&](int64_t row, Wide v) __attribute__((always_inline)) {
        store_row(values, row, load_row(addends, row) + v);
      });
}

template <typename Value>
constexpr PackLoops<Value> pack_loops = {scan<Value>, pack<Value>, unpack<Value>};

}  // namespace

extern const BlockCodecLoops block_codec_loops = {pack_loops<int64_t>, pack_loops<int32_t>, stream_total,
                                                  fence, unpack_add};

}  // namespace troupe::kernels::TROUPE_ISA
