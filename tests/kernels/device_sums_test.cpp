#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cuda/checksum.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

constexpr int64_t kTableRow = 300, kTableRows = 12;

BlockLayout test_layout() {
  BlockLayout layout;
  layout.append(3000, 3000);
  layout.append(kTableRows * kTableRow, kTableRow);
  layout.append(7, 7);
  layout.append(20 * 16, 16);
  layout.append(1, 1);      // at an odd element, and first of a range of three:
  layout.append(768, 768);  // what follows is aligned in the flat space but not in the range
  return layout;
}
constexpr int64_t kTableOffset = 3000;

// Numbers whose size changes from block to block and, now and then, from element to element.
Matrix gradient(int64_t count, uint64_t seed) {
  Matrix m(1, count);
  const Philox philox = philox_from(mix64(seed, 1));
  for (size_t i = 0; i < m.values.size(); ++i) {
    const auto w = philox(i);
    const float unit = float(w[0]) * 0x1p-32f + float(w[1]) * 0x1p-32f + float(w[2]) * 0x1p-32f - 1.5f;
    const int size = int(philox(i / 200, 1)[0] % 20) - 14 + (w[3] % 50 == 0 ? 3 : 0);
    m.values[i] = std::ldexp(w[3] % 97 == 0 ? 0.0f : unit, size);
  }
  return m;
}

// The integers of `slots` slots folded on the CPU, each in two pieces and with rows of the table folded once
// more.
std::vector<int64_t> cpu_sums(const BlockLayout& layout, int slots, int bits,
                              const std::vector<int32_t>& rows) {
  ExactAccumulator sums(layout);
  for (int slot = 0; slot < slots; ++slot) {
    const Matrix g = gradient(layout.elements(), uint64_t(slot));
    const Matrix table = gradient(int64_t(rows.size()) * kTableRow, 99 + uint64_t(slot));
    ExactSink sink(sums, {bits, slots, mix64(9, uint64_t(slot))});
    sink.fold(0, view_of(g.values.data(), 1, 512));
    sink.fold(512, view_of(g.values.data() + 512, 1, layout.elements() - 512));
    sink.fold_rows(kTableOffset, rows, view_of(table.values.data(), int64_t(rows.size()), kTableRow));
    CHECK(sink.flags() == kSumClean);
  }
  return {sums.values().begin(), sums.values().end()};
}

void fold_on(TestDevice& device, DeviceAccumulator& sums, int slots, int bits,
             const std::vector<int32_t>& rows) {
  const int64_t elements = sums.layout().elements();
  for (int slot = 0; slot < slots; ++slot) {
    const Placed g(device, DType::f32, gradient(elements, uint64_t(slot)));
    const Placed table(device, DType::f32, [&] {
      Matrix m = gradient(int64_t(rows.size()) * kTableRow, 99 + uint64_t(slot));
      m.rows = int64_t(rows.size());
      m.cols = kTableRow;
      return m;
    }());
    DeviceSink sink(*device.cuda(), sums, {bits, slots, mix64(9, uint64_t(slot))});
    sink.fold(0, g.view().col_range(0, 512));
    sink.fold(512, g.view().col_range(512, elements - 512));
    sink.fold_rows(kTableOffset, rows, table.view());
  }
}

RoundedTotal random_total(const BlockLayout& layout) {
  RoundedTotal total;
  total.resize(layout);
  for (size_t i = 0; i < total.mantissa.size(); ++i) total.mantissa[i] = int32_t(mix64(1, i));
  for (size_t i = 0; i < total.shift.size(); ++i) total.shift[i] = uint8_t(mix64(2, i) % 12);
  return total;
}

}  // namespace

TEST_CASE("exact sums and their rounded totals are the CPU's integers on every device, at every width") {
  const BlockLayout layout = test_layout();
  const std::vector<int32_t> rows{7, 0, 11, 3};
  for (const int bits : {24, 16, 9, 8, 4, 2}) {
    CAPTURE(bits);
    const std::vector<int64_t> expected = cpu_sums(layout, 3, bits, rows);
    RoundedTotal rounded;
    rounded.resize(layout);
    round_total(layout, expected, {bits, 31}, 0, layout.blocks(), rounded);
    for (const auto& device : other_test_devices()) {
      CAPTURE(device->name());
      CudaStream& stream = *device->cuda();
      DeviceAccumulator sums(stream, layout);
      fold_on(*device, sums, 3, bits, rows);
      std::vector<int64_t> values(size_t(layout.elements()));
      sums.copy_to_host(stream, values.data());
      CHECK(values == expected);
      CHECK(sums.read_flags(stream) == kSumClean);
      DeviceTotal total(stream, layout);
      total.round(stream, sums, {bits, 31});
      CHECK(total.to_host(stream) == rounded);
      DeviceTotal in_parts(stream, layout);
      for (int64_t begin = 0; begin < layout.blocks(); begin += 5) {
        const int64_t end = std::min(begin + 5, layout.blocks());
        in_parts.round(stream, sums.values() + layout.block(begin).offset, begin, end, {bits, 31});
      }
      CHECK(in_parts.to_host(stream) == rounded);
    }
  }
}

// Blocks of many sizes and a table of odd rows, from element `first` of the flat space on.
BlockLayout layout_from(int64_t first) {
  BlockLayout layout;
  if (first > 0) layout.append(first, first);
  layout.append(5 * 257, 257);
  for (const int64_t count : {256, 512, 1, 255, 2, 3, 256, 64, 63, 66, 193, 194, 195, 1000})
    layout.append(count, count);
  return layout;
}

TEST_CASE("sums, gradients and totals at odd places give the CPU's integers on every device") {
  constexpr int64_t kRow = 257;
  const std::vector<int32_t> rows{3, 0, 4};
  for (const int64_t first : {0, 1, 2, 3})
    for (const int bits : {24, 8}) {
      CAPTURE(first);
      CAPTURE(bits);
      const BlockLayout layout = layout_from(first);
      const int64_t elements = layout.elements(), row_elements = int64_t(rows.size()) * kRow;
      const Matrix g = gradient(elements, 5), table = gradient(row_elements, 6);
      ExactAccumulator sums_there(layout);
      ExactSink sink(sums_there, {bits, 2, 7});
      sink.fold(0, g.view());
      sink.fold_rows(first, rows, view_of(table.values.data(), int64_t(rows.size()), kRow));
      const std::vector<int64_t> expected(sums_there.values().begin(), sums_there.values().end());
      RoundedTotal rounded;
      rounded.resize(layout);
      round_total(layout, expected, {bits, 31}, 0, layout.blocks(), rounded);
      for (const auto& device : other_test_devices())
        for (const size_t shift : {0, 1, 2, 3}) {  // elements, of the gradients and of the sums to round
          CAPTURE(device->name());
          CAPTURE(shift);
          CudaStream& stream = *device->cuda();
          const Buffer gradients = device->allocate((size_t(elements) + shift) * sizeof(float)),
                       table_rows = device->allocate((size_t(row_elements) + shift) * sizeof(float)),
                       copied = device->allocate((size_t(elements) + shift) * sizeof(int64_t));
          float* const from = static_cast<float*>(gradients.data()) + shift;
          float* const rows_from = static_cast<float*>(table_rows.data()) + shift;
          device->copy_in(from, g.values.data(), size_t(elements) * sizeof(float));
          device->copy_in(rows_from, table.values.data(), size_t(row_elements) * sizeof(float));
          DeviceAccumulator sums(stream, layout);
          DeviceSink device_sink(stream, sums, {bits, 2, 7});
          device_sink.fold(0, view_of(from, 1, elements));
          device_sink.fold_rows(first, rows, view_of(rows_from, int64_t(rows.size()), kRow));
          std::vector<int64_t> values(static_cast<size_t>(elements));
          sums.copy_to_host(stream, values.data());
          CHECK(values == expected);
          int64_t* const to_round = static_cast<int64_t*>(copied.data()) + shift;
          device->copy_in(to_round, expected.data(), size_t(elements) * sizeof(int64_t));
          DeviceTotal total(stream, layout);
          total.round(stream, to_round, 0, layout.blocks(), {bits, 31});
          CHECK(total.to_host(stream) == rounded);
        }
    }
}

TEST_CASE("blocks at the edge of a width fold as on the CPU, on every device") {
  for (int bits = 2; bits <= 24; ++bits) {
    CAPTURE(bits);
    const float top = std::ldexp(1.0f, bits - 1) - 1;  // the largest mantissa
    Matrix g(1, 60);
    for (size_t i = 0; i < g.values.size(); ++i) {
      const float near[] = {top, std::nextafter(top, 1e9f), std::nextafter(top, 0.0f), top + 1, -top};
      g.values[i] = std::ldexp(near[i % 5], -3 - int(i / 5) * 5);
    }
    BlockLayout layout;
    layout.append(60, 1);  // a block each
    const FoldOptions options{bits, 1, 3};
    ExactAccumulator expected(layout);
    ExactSink sink(expected, options);
    sink.fold(0, g.view());
    CHECK(sink.flags() == kSumClean);
    for (const auto& device : other_test_devices()) {
      CudaStream& stream = *device->cuda();
      const Placed placed(*device, DType::f32, g);
      DeviceAccumulator sums(stream, layout);
      DeviceSink(stream, sums, options).fold(0, placed.view());
      std::vector<int64_t> values(60);
      sums.copy_to_host(stream, values.data());
      CHECK(std::equal(values.begin(), values.end(), expected.values().begin()));
    }
  }
}

TEST_CASE("totals of every size are rounded as on the CPU, on every device") {
  BlockLayout layout;
  layout.append(62 * 256 + 40, 62 * 256 + 40);
  std::vector<int64_t> values(size_t(layout.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    const int top = int(i / 256) % 62;
    values[i] = int64_t(mix64(5, i) >> (63 - top)) * (i % 3 == 0 ? -1 : 1);
    if (i % 256 == 9) values[i] = (int64_t{1} << top) - 1;
  }
  for (const int bits : {24, 16, 8, 2}) {
    CAPTURE(bits);
    RoundedTotal rounded;
    rounded.resize(layout);
    round_total(layout, values, {bits, 3}, 0, layout.blocks(), rounded);
    for (const auto& device : other_test_devices()) {
      CudaStream& stream = *device->cuda();
      DeviceAccumulator sums(stream, layout);
      sums.copy_from_host(stream, values.data());
      DeviceTotal total(stream, layout);
      total.round(stream, sums, {bits, 3});
      CHECK(total.to_host(stream) == rounded);
    }
  }
}

TEST_CASE("NaN, infinity and values beyond the bound raise flags and add nothing, on every device") {
  BlockLayout layout;
  layout.append(600, 600);
  for (const auto& device : other_test_devices()) {
    CAPTURE(device->name());
    CudaStream& stream = *device->cuda();
    const auto flags_of = [&](float special) {
      Matrix g(1, 600, 0.5f);
      g.values[300] = special;
      const Placed placed(*device, DType::f32, g);
      DeviceAccumulator sums(stream, layout);
      DeviceSink(stream, sums, {24, 8, 0}).fold(0, placed.view());
      std::vector<int64_t> values(600);
      sums.copy_to_host(stream, values.data());
      CHECK(values[0] == int64_t{1} << 39);
      CHECK(values[599] == int64_t{1} << 39);
      CHECK((values[400] == 0) == (sums.read_flags(stream) != 0));
      return sums.read_flags(stream);
    };
    CHECK(flags_of(1.0f) == kSumClean);
    CHECK(flags_of(NAN) == kSumNotFinite);
    CHECK(flags_of(-HUGE_VALF) == kSumNotFinite);
    CHECK(flags_of(0x1p17f) == kSumClean);
    CHECK(flags_of(0x1.8p17f) == kSumOverflow);
  }
}

TEST_CASE("checksums of a device's memory are the host's, and a bit shows in the one of its piece") {
  constexpr int64_t kCounts[] = {0, 1, 31, 32, 255, 256, 257, 5000};
  std::vector<uint32_t> words(6000);
  for (size_t i = 0; i < words.size(); ++i) words[i] = uint32_t(mix64(3, i));
  for (const auto& device : other_test_devices()) {
    CAPTURE(device->name());
    const Buffer memory = device->allocate(words.size() * sizeof(uint32_t));
    const auto pieces_at = [&](const void* base) {
      std::vector<device::MemoryPiece> pieces;
      int64_t begin = 1;
      for (const int64_t count : kCounts) {
        pieces.push_back({static_cast<const uint32_t*>(base) + begin, count});
        begin += count;
      }
      return pieces;
    };
    const auto check = [&] {
      device->copy_in(memory.data(), words.data(), memory.bytes());
      const std::vector<uint64_t> sums = checksums(*device->cuda(), pieces_at(memory.data()));
      const auto on_host = pieces_at(words.data());
      REQUIRE(sums.size() == on_host.size());
      for (size_t i = 0; i < sums.size(); ++i) CHECK(sums[i] == checksum_on_host(on_host[i]));
      return sums;
    };
    const std::vector<uint64_t> before = check();
    words[1 + 1 + 31 + 7] ^= 1u << 30;  // in the piece of 32
    const std::vector<uint64_t> after = check();
    for (size_t i = 0; i < before.size(); ++i) CHECK((before[i] == after[i]) == (i != 3));
    std::swap(words[2000], words[2001]);  // in the last
    CHECK(check().back() != after.back());
  }
}

TEST_CASE("a total goes to a device and comes back, and flags are taken once, on every device") {
  const BlockLayout layout = test_layout();
  const RoundedTotal total = random_total(layout);
  for (const auto& device : other_test_devices()) {
    CAPTURE(device->name());
    CudaStream& stream = *device->cuda();
    DeviceTotal there(stream, layout);
    there.copy_from_host(stream, total);
    CHECK(there.to_host(stream) == total);
    DeviceAccumulator sums(stream, layout);
    Matrix g(1, 3000, 0.5f);
    g.values[300] = NAN;
    const Placed placed(*device, DType::f32, g);
    DeviceSink(stream, sums, {24, 8, 0}).fold(0, placed.view());
    CHECK(sums.take_flags(stream) == kSumNotFinite);
    CHECK(sums.take_flags(stream) == kSumClean);
    std::vector<int64_t> part(2);
    sums.copy_to_host(stream, 255, 257, part.data());
    CHECK(part == std::vector<int64_t>{int64_t{1} << 39, 0});
  }
}

TEST_CASE("a device's sink refuses gradients that are not whole blocks") {
  const BlockLayout layout = test_layout();
  for (const auto& device : other_test_devices()) {
    DeviceAccumulator sums(*device->cuda(), layout);
    DeviceSink sink(*device->cuda(), sums, {24, 1, 0});
    const Placed g(*device, DType::f32, 1, 400);
    CHECK_THROWS_AS(sink.fold(1, g.view()), CheckFailure);
    CHECK_THROWS_AS(sink.fold(0, g.view()), CheckFailure);
    CHECK_THROWS_AS(sink.fold_rows(0, std::vector<int32_t>{0}, g.view()), CheckFailure);
  }
}

TEST_CASE("block square sums and AdamW give the CPU's bits on every device, in ranges as in one piece") {
  const BlockLayout layout = test_layout();
  const RoundedTotal total = random_total(layout);
  AdamW rule;
  rule.learning_rate = 0.01f;
  rule.epsilon = 1e-6f;
  rule.weight_decay = 0.1f;
  rule.bias_correction1 = 0.19f;
  rule.bias_correction2 = 0.0396f;
  rule.gradient_scale = 0.3f;
  const Matrix weight = random_matrix(1, layout.elements(), 3),
               moment1 = random_matrix(1, layout.elements(), 4, 0.1f);
  Matrix moment2 = random_matrix(1, layout.elements(), 5, 0.01f);
  for (float& v : moment2.values) v = std::abs(v);
  for (const int64_t range : {layout.blocks(), int64_t{3}})
    check_devices(
        [&](TestDevice& device) {
          const Placed w(device, DType::f32, weight), m(device, DType::f32, moment1),
              v(device, DType::f32, moment2);
          std::vector<double> sums(size_t(layout.blocks()));
          for (int64_t begin = 0; begin < layout.blocks(); begin += range) {
            const int64_t end = std::min(begin + range, layout.blocks());
            device.stream().block_square_sums(layout, total, begin, end, sums.data() + begin);
            device.stream().adamw(rule, layout, total, begin, end, w.view().as<float>(), m.view().as<float>(),
                                  v.view().as<float>());
          }
          Matrix halves(2, layout.blocks());  // each f64 in two parts
          for (size_t i = 0; i < sums.size(); ++i) {
            halves.values[i] = float(sums[i]);
            halves.values[sums.size() + i] = float((sums[i] - double(halves.values[i])) * 0x1p20);
          }
          return Results{w.values(), m.values(), v.values(), halves};
        },
        {kSameBits});
}
