#include "kernels/block_codec.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/loops/block_codec.hpp"
#include "kernels/cpu/stream.hpp"

using namespace troupe;
using namespace troupe::kernels;

namespace {

BlockLayout test_layout() {
  BlockLayout layout;
  layout.append(1000, 1000);
  layout.append(6 * 300, 300);
  for (int64_t count : {1, 2, 7, 8, 9, 15, 63, 64, 65, 255, 256, 257}) layout.append(count, count);
  return layout;
}

// Values of `width` bits with `zeros` trailing zeros, another width in each block when width is 0.
std::vector<int64_t> values_of(const BlockLayout& layout, int width, int zeros, uint64_t seed) {
  std::vector<int64_t> values(size_t(layout.elements()));
  layout.for_each(0, layout.blocks(), [&](int64_t index, BlockLayout::Block block) {
    const int own = width > 0 ? width : int(mix64(seed, uint64_t(index)) % 65);
    const int shift =
        std::min(width > 0 ? zeros : int(mix64(seed, uint64_t(index) + 1'000'000) % 30), 64 - own);
    for (int64_t i = 0; i < block.count; ++i) {
      const int64_t random = int64_t(mix64(seed, uint64_t(block.offset + i)));
      values[size_t(block.offset + i)] =
          own == 0 ? 0 : int64_t(uint64_t(random >> (64 - own)) << (shift % 64));
    }
  });
  return values;
}

std::vector<std::byte> encode(const BlockLayout& layout, const std::vector<int64_t>& values) {
  std::vector<std::byte> bytes(encoded_bytes_max(layout, 0, layout.blocks()));
  bytes.resize(encode_blocks(layout, 0, layout.blocks(), values, bytes));
  return bytes;
}

void check_round_trip(const BlockLayout& layout, const std::vector<int64_t>& values) {
  const std::vector<std::byte> bytes = encode(layout, values);
  std::vector<int64_t> decoded(values.size(), -1);
  decode_blocks(layout, 0, layout.blocks(), bytes, decoded);
  CHECK(decoded == values);
  std::vector<int64_t> own(values.size()), sum(values.size());
  for (size_t i = 0; i < own.size(); ++i) {
    own[i] = int64_t(mix64(3, i));
    sum[i] = int64_t(uint64_t(own[i]) + uint64_t(values[i]));
  }
  std::vector<std::byte> encoded(encoded_bytes_max(layout, 0, layout.blocks()));
  encoded.resize(encode_sum(layout, 0, layout.blocks(), own, bytes, encoded));
  CHECK(encoded == encode(layout, sum));
}

}  // namespace

TEST_CASE("partial sums of every width come back whole, in blocks of every size") {
  const BlockLayout layout = test_layout();
  for (int width = 1; width <= 64; ++width)
    for (int zeros : {0, 1, 5, 40})
      check_round_trip(layout, values_of(layout, width, zeros, uint64_t(width)));
  for (uint64_t seed = 0; seed < 50; ++seed) check_round_trip(layout, values_of(layout, 0, 0, seed));
}

TEST_CASE("extreme blocks come back whole") {
  const BlockLayout layout = test_layout();
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  for (int64_t value :
       {int64_t{0}, int64_t{1}, int64_t{-1}, kMin, kMax, kMin + 1, int64_t{1} << 62, -(int64_t{1} << 62)})
    check_round_trip(layout, std::vector<int64_t>(size_t(layout.elements()), value));
  std::vector<int64_t> mixed(size_t(layout.elements()));
  for (size_t i = 0; i < mixed.size(); ++i) mixed[i] = std::array{kMin, kMax, int64_t{0}, int64_t{-1}}[i % 4];
  check_round_trip(layout, mixed);
  check_round_trip(BlockLayout(), {});
}

TEST_CASE("a block takes the bits of its widest value, and zeros take a header") {
  BlockLayout layout;
  layout.append(2560, 2560);
  CHECK(encode(layout, std::vector<int64_t>(2560, 0)).size() == 20);
  CHECK(encode(layout, std::vector<int64_t>(2560, -(int64_t{1} << 50))).size() == 20 + 2560 / 8);
  CHECK(encode(layout, values_of(layout, 9, 20, 1)).size() == 20 + 2560 * 9 / 8);
  CHECK(encode(layout, values_of(layout, 64, 0, 1)).size() == encoded_bytes_max(layout, 0, 10));
}

TEST_CASE("ranges of blocks are packed for themselves") {
  const BlockLayout layout = test_layout();
  const std::vector<int64_t> values = values_of(layout, 0, 0, 8);
  std::vector<int64_t> decoded(values.size());
  for (int64_t begin = 0; begin < layout.blocks(); begin += 3) {
    const int64_t end = std::min(begin + 3, layout.blocks());
    const size_t offset = size_t(layout.block(begin).offset), count = size_t(layout.elements_in(begin, end));
    std::vector<std::byte> bytes(encoded_bytes_max(layout, begin, end));
    bytes.resize(encode_blocks(layout, begin, end, std::span(values).subspan(offset, count), bytes));
    decode_blocks(layout, begin, end, bytes, std::span(decoded).subspan(offset, count));
  }
  CHECK(decoded == values);
}

TEST_CASE("what a range may take at most is what its blocks may") {
  const BlockLayout layout = test_layout();
  for (int64_t begin = 0; begin <= layout.blocks(); ++begin) {
    size_t sums = 0, totals = 0;
    for (int64_t end = begin;; ++end) {
      CHECK(encoded_bytes_max(layout, begin, end) == sums);
      CHECK(encoded_total_bytes_max(layout, begin, end) == totals);
      if (end == layout.blocks()) break;
      const auto rows = size_t(layout.block(end).count + 7) / 8;  // of eight values
      sums += 2 + rows * 64;
      totals += 3 + rows / 2 * 64 + rows % 2 * 32;
    }
  }
}

TEST_CASE("every level packs the same bytes") {
  for (int64_t rows : {1, 5, 32})
    for (int width = 1; width <= 64; ++width) {
      std::vector<int64_t> values(size_t(rows) * 8);
      for (size_t i = 0; i < values.size(); ++i) values[i] = int64_t(mix64(1, i)) >> (64 - width);
      std::vector<std::vector<uint8_t>> packed;
      for (IsaLevel level : {IsaLevel::v2, IsaLevel::v3, IsaLevel::v4}) {
        if (level > best_isa_level()) continue;
        const BlockCodecLoops& loops = *loops_of(level).block_codec;
        packed.emplace_back(values.size() * 8, uint8_t{0xa5});
        loops.sums.pack(values.data(), rows, width, 0, packed.back().data());
        std::vector<int64_t> unpacked(values.size());
        loops.sums.unpack(packed.back().data(), rows, width, 0, unpacked.data());
        CHECK(unpacked == values);
        uint64_t any = 1, magnitude = 1;
        loops.sums.scan(values.data(), rows, &any, &magnitude);
        CHECK((magnitude >> (width - 1)) == 0);
        if (width > 32) continue;
        const std::vector<int32_t> narrow(values.begin(), values.end());
        packed.emplace_back(values.size() * 8, uint8_t{0xa5});
        loops.totals.pack(narrow.data(), rows, width, 0, packed.back().data());
        std::vector<int32_t> unpacked_narrow(values.size());
        loops.totals.unpack(packed.back().data(), rows, width, 0, unpacked_narrow.data());
        CHECK(unpacked_narrow == narrow);
        std::vector<int32_t> streamed(values.size());
        loops.stream_total(packed.back().data(), rows, width, 0, streamed.data());
        loops.fence();
        CHECK(streamed == narrow);
        uint64_t any_narrow = 0, magnitude_narrow = 0;
        loops.totals.scan(narrow.data(), rows, &any_narrow, &magnitude_narrow);
        CHECK(any_narrow == any);
        CHECK(magnitude_narrow == magnitude);
      }
      for (const auto& bytes : packed) CHECK(bytes == packed.front());
    }
}

TEST_CASE("rounded totals come back whole") {
  const BlockLayout layout = test_layout();
  for (int width = 1; width <= 32; ++width) {
    RoundedTotal total, decoded;
    total.resize(layout);
    decoded.resize(layout);
    for (size_t i = 0; i < total.mantissa.size(); ++i)
      total.mantissa[i] = i < 256 ? 0 : int32_t(mix64(uint64_t(width), i)) >> (32 - width);
    for (size_t i = 0; i < total.shift.size(); ++i) total.shift[i] = uint8_t(mix64(2, i) % 63);
    std::vector<std::byte> bytes(encoded_total_bytes_max(layout, 0, layout.blocks()));
    bytes.resize(encode_total(layout, 0, layout.blocks(), total, bytes));
    decode_total(layout, 0, layout.blocks(), bytes, decoded);
    CHECK(decoded == total);
    bytes[0] = std::byte{63};
    CHECK_THROWS_AS(decode_total(layout, 0, layout.blocks(), bytes, decoded), Error);
  }
}

TEST_CASE("totals that no cache holds come back whole") {
  BlockLayout layout;
  layout.append(4 << 20, 4 << 20);
  layout.append(7 * 301, 301);  // rows that end at odd places
  RoundedTotal total, decoded;
  total.resize(layout);
  decoded.resize(layout);
  for (size_t i = 0; i < total.mantissa.size(); ++i) total.mantissa[i] = int32_t(mix64(9, i)) >> 8;
  std::vector<std::byte> bytes(encoded_total_bytes_max(layout, 0, layout.blocks()));
  bytes.resize(encode_total(layout, 0, layout.blocks(), total, bytes));
  decode_total(layout, 0, layout.blocks(), bytes, decoded);
  CHECK(decoded == total);
}

TEST_CASE("a sum that is whole is rounded and encoded as by rounding and encoding it") {
  const BlockLayout layout = test_layout();
  for (int bits : {4, 24}) {
    std::vector<int64_t> values = values_of(layout, 50, 0, 5), sum = values;
    const std::vector<int64_t> others = values_of(layout, 0, 0, 6);
    std::vector<int64_t> bounded = others;
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += bounded[i] >>= 4;
    const int64_t blocks = layout.blocks();
    for (const auto& [begin, end] : {std::pair{int64_t{0}, blocks}, {int64_t{3}, blocks - 2}}) {
      const auto part = [&](const std::vector<int64_t>& all) {
        return std::span(all).subspan(size_t(layout.block(begin).offset),
                                      size_t(layout.elements_in(begin, end)));
      };
      RoundedTotal expected, total;
      expected.resize(layout);
      total.resize(layout);
      const RoundOptions rounding{bits, 77};
      round_total(layout, part(sum), rounding, begin, end, expected);
      std::vector<std::byte> wanted(encoded_total_bytes_max(layout, begin, end)), bytes = wanted;
      wanted.resize(encode_total(layout, begin, end, expected, wanted));
      std::vector<std::byte> partial(encoded_bytes_max(layout, begin, end));
      partial.resize(encode_blocks(layout, begin, end, part(bounded), partial));
      bytes.resize(encode_rounded_sum(layout, begin, end, part(values), partial, rounding, total, bytes));
      CHECK(bytes == wanted);
      CHECK(total == expected);
    }
  }
}

TEST_CASE("bytes that are no encoding are refused, and never lead outside") {
  const BlockLayout layout = test_layout();
  const std::vector<std::byte> good = encode(layout, values_of(layout, 0, 0, 21));
  std::vector<int64_t> values(size_t(layout.elements()));
  std::vector<std::byte> out(encoded_bytes_max(layout, 0, layout.blocks()));
  RoundedTotal total;
  total.resize(layout);
  const auto decodes = [&](const std::vector<std::byte>& bytes) {
    const std::vector<std::byte> exact(bytes);  // a heap block of its own, for the sanitizer to guard
    try {
      decode_blocks(layout, 0, layout.blocks(), exact, values);
      CHECK_NOTHROW(encode_sum(layout, 0, layout.blocks(), values, exact, out));
      return true;
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::corrupt);
      CHECK_THROWS_AS(encode_sum(layout, 0, layout.blocks(), values, exact, out), Error);
      return false;
    }
  };
  CHECK(decodes(good));
  for (size_t cut = 0; cut < good.size(); cut += 1 + cut / 50)
    CHECK_FALSE(decodes(std::vector<std::byte>(good.begin(), good.begin() + int64_t(cut))));
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  CHECK_FALSE(decodes(longer));

  int refused = 0;
  for (uint64_t trial = 0; trial < 2000; ++trial) {
    std::vector<std::byte> bytes = good;
    if (trial % 2 == 0) {
      bytes.resize(mix64(trial, 1) % 4096);
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(mix64(trial, i) & 0xff);
    } else {
      for (uint64_t flip = 0; flip < 3; ++flip)
        bytes[mix64(trial, flip) % bytes.size()] ^= std::byte(1 << mix64(trial, 100 + flip) % 8);
    }
    refused += decodes(bytes) ? 0 : 1;
    try {
      decode_total(layout, 0, layout.blocks(), std::vector<std::byte>(bytes), total);
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > 2000);
}
