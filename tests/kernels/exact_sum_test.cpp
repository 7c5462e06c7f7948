#include "kernels/cpu/loops/exact_sum.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <xmmintrin.h>

#include "kernels/accumulator.hpp"
#include "kernels/base/det_math.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/stream.hpp"
#include "kernels/reference/exact_sum.hpp"

using namespace troupe;
using namespace troupe::kernels;

namespace {

// Standard-normal-like numbers whose size changes from block to block and, now and then, from element to
// element.
std::vector<float> gradient(int64_t count, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  const Philox philox = philox_from(mix64(seed, 1));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto w = philox(i);
    const float unit = float(w[0]) * 0x1p-32f + float(w[1]) * 0x1p-32f + float(w[2]) * 0x1p-32f - 1.5f;
    const int size = int(philox(i / 200, 1)[0] % 20) - 14 + (w[3] % 50 == 0 ? 3 : 0);
    values[i] = std::ldexp(w[3] % 97 == 0 ? 0.0f : unit, size);
  }
  return values;
}

BlockLayout test_layout() {
  BlockLayout layout;
  layout.append(3000, 3000);
  layout.append(40 * 300, 300);
  layout.append(7, 7);
  layout.append(20 * 16, 16);
  return layout;
}

std::vector<IsaLevel> levels() {
  std::vector<IsaLevel> all;
  for (IsaLevel level : {IsaLevel::v2, IsaLevel::v3, IsaLevel::v4})
    if (level <= best_isa_level()) all.push_back(level);
  return all;
}

uint32_t fold_all(ExactAccumulator& sums, const std::vector<float>& values, const FoldOptions& options) {
  ExactSink sink(sums, options);
  sink.fold(0, view_of(values.data(), 1, int64_t(values.size())));
  return sink.flags();
}

}  // namespace

TEST_CASE("a folded block is what the rule says, at every level, width and count") {
  for (IsaLevel level : levels())
    for (int bits = 2; bits <= 24; ++bits)
      for (int64_t count : {1, 7, 15, 16, 17, 31, 33, 100, 255, 256}) {
        const std::vector<float> values = gradient(count, uint64_t(bits));
        const FoldOptions options{bits, 1, 77};
        std::vector<int64_t> expected(size_t(count), 5), sums(size_t(count), 5);
        reference::fold_block(values, 1000, options, expected);
        const FoldRule rule{bits, 0x1p20f, 77};
        CHECK(loops_of(level).exact_sum->fold(values.data(), count, 1000, &rule, sums.data()) == 0);
        CHECK(sums == expected);
      }
}

TEST_CASE("mantissas use the whole width and never leave it") {
  const ExactSumLoops& loops = *loops_of(best_isa_level()).exact_sum;
  for (int bits = 2; bits <= 24; ++bits) {
    const float top = std::ldexp(1.0f, bits - 1) - 1;  // the largest mantissa
    for (float max : {top, std::nextafter(top, 1e9f), std::nextafter(top, 0.0f), top + 1, -top, 2 * top}) {
      if (std::abs(max) > 0x1p22f) continue;  // 2^62 units
      const FoldRule rule{bits, 0x1p60f, 3};
      int64_t sum = 0;
      CHECK(loops.fold(&max, 1, 0, &rule, &sum) == 0);
      const double folded = std::ldexp(double(sum), kGridExponent);
      const double step = std::abs(max) <= top ? 1 : 2;
      CHECK(std::abs(folded) <= double(top) * step);
      CHECK(std::abs(folded - double(max)) <= (bits > 8 ? 0.5 : 1.0) * step);
      CHECK(folded / step == std::floor(folded / step));
    }
  }
}

TEST_CASE("a fold gives the same integers whether or not its thread flushes denormal numbers") {
  const BlockLayout layout = test_layout();
  std::vector<float> values = gradient(layout.elements(), 3);
  for (size_t i = 0; i < values.size(); i += 5)
    values[i] = (i % 2 == 0 ? -1.0f : 1.0f) * 0x1p-149f * float(i);
  std::fill(values.begin() + 256, values.begin() + 512, -0x1p-140f);  // a whole block below the grid
  for (int bits : {24, 8, 2}) {
    ExactAccumulator kept(layout), flushed(layout);
    const unsigned state = _mm_getcsr();
    _mm_setcsr(state & ~0x8040u);
    fold_all(kept, values, {bits, 1, 7});
    _mm_setcsr(state | 0x8040u);
    fold_all(flushed, values, {bits, 1, 7});
    _mm_setcsr(state);
    CHECK(std::ranges::equal(kept.values(), flushed.values()));
    CHECK(std::all_of(kept.values().begin() + 256, kept.values().begin() + 512,
                      [](int64_t v) { return v == 0; }));
  }
}

TEST_CASE("the total is the same integers for any order of the slots and any split over accumulators") {
  const BlockLayout layout = test_layout();
  constexpr int kSlots = 12;
  std::vector<std::vector<float>> slots;
  for (uint64_t slot = 0; slot < kSlots; ++slot) slots.push_back(gradient(layout.elements(), slot));
  for (int bits : {24, 16, 8, 4}) {
    const auto options = [&](int slot) { return FoldOptions{bits, kSlots, mix64(9, uint64_t(slot))}; };
    ExactAccumulator expected(layout);
    for (int slot = 0; slot < kSlots; ++slot)
      CHECK(fold_all(expected, slots[size_t(slot)], options(slot)) == 0);

    for (uint64_t trial = 0; trial < 4; ++trial) {
      const Permutation order(trial, kSlots);
      std::vector<ExactAccumulator*> parts;
      ExactAccumulator a(layout), b(layout), c(layout);
      for (uint64_t i = 0; i < kSlots; ++i) {
        const int slot = int(order(i));
        ExactAccumulator* part = std::array{&a, &b, &c}[philox_from(trial)(i)[0] % 3];
        fold_all(*part, slots[size_t(slot)], options(slot));
      }
      for (size_t i = 0; i < a.values().size(); ++i) a.values()[i] += b.values()[i] + c.values()[i];
      CHECK(std::ranges::equal(a.values(), expected.values()));
    }
  }
}

TEST_CASE("threads that fold at once into one accumulator give the integers of one thread") {
  const BlockLayout layout = test_layout();
  constexpr int kThreads = 4, kFolds = 6;
  ExactAccumulator expected(layout), shared(layout);
  const auto fold_slots = [&](ExactAccumulator& sums, int thread) {
    for (int fold = 0; fold < kFolds; ++fold) {
      const uint64_t slot = uint64_t(thread * kFolds + fold);
      fold_all(sums, gradient(layout.elements(), slot), {8, kThreads * kFolds, slot});
    }
  };
  for (int thread = 0; thread < kThreads; ++thread) fold_slots(expected, thread);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread)
    threads.emplace_back(fold_slots, std::ref(shared), thread);
  for (std::thread& thread : threads) thread.join();
  CHECK(std::ranges::equal(shared.values(), expected.values()));
}

TEST_CASE("the error of a 24-bit sum of normal numbers lies below that of backpropagation in f32") {
  BlockLayout layout;
  layout.append(1 << 16, 1 << 16);
  constexpr int kSlots = 8;
  ExactAccumulator sums(layout);
  std::vector<double> exact(size_t(layout.elements()));
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    std::vector<float> values(exact.size());
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = 1e-3f * float(det::normal_pair(mix64(slot, 2 * i), mix64(slot, 2 * i + 1))[0]);
    fold_all(sums, values, {24, kSlots, 0});
    for (size_t i = 0; i < exact.size(); ++i) exact[i] += double(values[i]);
  }
  double error = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(std::ldexp(double(sums.values()[i]), kGridExponent) - exact[i], 2);
    norm += exact[i] * exact[i];
  }
  INFO("relative error ", std::sqrt(error / norm));
  CHECK(std::sqrt(error / norm) < 2.9e-7);
  CHECK(std::sqrt(error / norm) > 1e-9);  // it does round
}

TEST_CASE("stochastic rounding is unbiased and depends on key and element alone") {
  BlockLayout layout;
  layout.append(256, 256);
  std::vector<float> values(256, 0.3f);
  values[0] = 7;  // 4 bits: the step is 1
  ExactAccumulator sums(layout), again(layout);
  constexpr int kSlots = 400;
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    fold_all(sums, values, {4, kSlots, slot});
    fold_all(again, values, {4, kSlots, slot});
  }
  CHECK(std::ranges::equal(sums.values(), again.values()));
  const auto total = [&](size_t i) { return std::ldexp(double(sums.values()[i]), kGridExponent); };
  CHECK(total(0) == 7.0 * kSlots);
  double mean = 0;
  for (size_t i = 1; i < 256; ++i) mean += total(i) / (255.0 * kSlots);
  CHECK(std::abs(mean - 0.3) < 0.006);  // four standard deviations
}

TEST_CASE("NaN, infinity and too large values raise flags and leave their block alone") {
  const BlockLayout layout = test_layout();
  struct Case {
    float value;
    int slots;
    uint32_t flags;
  };
  // 2^20 / 2^ceil(log2 slots) is the bound.
  for (const Case& c :
       {Case{NAN, 1, kSumNotFinite}, Case{INFINITY, 1, kSumNotFinite}, Case{-INFINITY, 1, kSumNotFinite},
        Case{0x1p20f, 1, kSumClean}, Case{-0x1.000002p20f, 1, kSumOverflow}, Case{0x1p17f, 8, kSumClean},
        Case{0x1p17f, 9, kSumOverflow}, Case{3e38f, 2, kSumOverflow}}) {
    std::vector<float> values = gradient(layout.elements(), 1);
    values[3000 + 300 + 10] = c.value;  // block 12 + 2, elements 3300 to 3555
    ExactAccumulator sums(layout);
    CHECK(fold_all(sums, values, {24, c.slots, 0}) == c.flags);
    const auto untouched = [&](size_t begin, size_t end) {
      return std::all_of(sums.values().begin() + int64_t(begin), sums.values().begin() + int64_t(end),
                         [](int64_t sum) { return sum == 0; });
    };
    CHECK(untouched(3300, 3556) == (c.flags != kSumClean));
    CHECK_FALSE(untouched(3000, 3300));
    CHECK_FALSE(untouched(3556, 3600));
  }
}

TEST_CASE("an element that each slot folds three times is added up whole, or flagged before its sum wraps") {
  BlockLayout layout;
  layout.append(20, 20);
  for (const int slots : {1, 3, 8})
    for (const float sign : {1.0f, -1.0f}) {
      CAPTURE(slots);
      ExactAccumulator sums(layout);
      const auto fold_three_times = [&](float value) {
        const std::vector<float> values(20, sign * value);
        ExactSink sink(sums, {24, slots, 0});
        for (int use = 0; use < 3; ++use) sink.fold(0, view_of(values.data(), 1, 20));
        return sink.flags();
      };
      const float limit = fold_limit({24, slots, 0});
      for (int slot = 0; slot < slots; ++slot) CHECK(fold_three_times(limit) == kSumClean);
      const double expected = double(sign) * 3 * slots * double(limit);
      CHECK(std::ldexp(double(sums.values()[7]), kGridExponent) == expected);
      // Three of these, of one slot alone, are more than 2^63 units.
      if (slots == 1) CHECK(fold_three_times(0x1.fp21f) == kSumOverflow);
      CHECK(std::ldexp(double(sums.values()[7]), kGridExponent) == expected);
    }
}

TEST_CASE("totals are rounded as the rule says, in whatever ranges, with or without random numbers") {
  const BlockLayout layout = test_layout();
  std::vector<int64_t> total(size_t(layout.elements()));
  const std::vector<float> values = gradient(layout.elements(), 4);
  for (size_t i = 0; i < total.size(); ++i) total[i] = int64_t(std::ldexp(double(values[i]), 36));
  total[0] = 0x7fffffff;    // just fits 32 bits
  total[257] = 0x80000000;  // does not
  for (int bits : {24, 16, 12, 8, 4, 2}) {
    RoundedTotal whole, parts;
    whole.resize(layout);
    parts.resize(layout);
    round_total(layout, total, {bits, 5}, 0, layout.blocks(), whole);
    for (int64_t begin = 0; begin < layout.blocks(); begin += 5) {
      const int64_t end = std::min(begin + 5, layout.blocks());
      const auto range = std::span(total).subspan(size_t(layout.block(begin).offset),
                                                  size_t(layout.elements_in(begin, end)));
      round_total(layout, range, {bits, 5}, begin, end, parts);
    }
    CHECK(whole == parts);
    const int total_bits = bits == 24 ? 32 : bits;
    const int64_t limit = (int64_t{1} << (total_bits - 1)) - 1;
    layout.for_each(0, layout.blocks(), [&](int64_t index, BlockLayout::Block block) {
      const auto in = std::span<const int64_t>(total).subspan(size_t(block.offset), size_t(block.count));
      std::vector<int32_t> expected(in.size());
      const int shift = reference::round_block(in, total_bits, expected);
      CHECK(int(whole.shift[size_t(index)]) == shift);
      for (size_t i = 0; i < in.size(); ++i) {
        const int32_t mantissa = whole.mantissa[size_t(block.offset) + i];
        CHECK(std::abs(int64_t(mantissa)) <= limit);
        if (bits > 8)
          CHECK(mantissa == expected[i]);
        else
          CHECK(std::abs(std::ldexp(double(mantissa), shift) - double(in[i])) < std::ldexp(1.0, shift));
      }
    });
  }
}

TEST_CASE(
    "the lowest of all integers is rounded as what it is, and a float sum that is no number as the largest") {
  BlockLayout layout;
  layout.append(300, 300);
  std::vector<int64_t> total(300, 5);
  total[7] = total[290] = std::numeric_limits<int64_t>::min();
  RoundedTotal out;
  out.resize(layout);
  round_total(layout, total, {24, 1}, 0, layout.blocks(), out);
  CHECK(out.shift[0] == 33);
  CHECK(out.mantissa[7] == -(1 << 30));
  CHECK(out.mantissa[290] == -(1 << 30));
  CHECK(out.mantissa[0] == 0);

  std::vector<float> sums(300, 1.0f);
  sums[7] = NAN;
  round_float_total(layout, sums, 0, layout.blocks(), out);
  CHECK(std::ldexp(double(out.mantissa[7]), out.shift[0]) == 0x1p61);
}

TEST_CASE("rounded float sums keep the value of every element to 2^-31 of its block's largest") {
  const BlockLayout layout = test_layout();
  FloatAccumulator sums(layout);
  std::vector<float> values = gradient(layout.elements(), 4);
  FloatSink sink(sums);
  sink.fold(0, view_of(values.data(), 1, layout.elements()));
  CHECK(sink.flags() == kSumClean);
  CHECK(std::ranges::equal(sums.values(), values));
  RoundedTotal out;
  out.resize(layout);
  round_float_total(layout, sums.values(), 0, layout.blocks(), out);
  layout.for_each(0, layout.blocks(), [&](int64_t index, BlockLayout::Block block) {
    for (int64_t i = block.offset; i < block.offset + block.count; ++i) {
      const double step = std::ldexp(1.0, out.shift[size_t(index)] + kGridExponent);
      CHECK(std::abs(double(out.mantissa[size_t(i)]) * step - double(values[size_t(i)])) <= 0.5 * step);
    }
  });
  values[5] = NAN;
  sink.fold(0, view_of(values.data(), 1, layout.elements()));
  CHECK(sink.flags() == kSumNotFinite);
}

TEST_CASE("ranges of an accumulator are cleared, and what is not whole blocks is refused") {
  const BlockLayout layout = test_layout();
  ExactAccumulator sums(layout);
  const std::vector<float> values = gradient(layout.elements(), 2);
  fold_all(sums, values, {});
  sums.clear(1, 3);
  CHECK(std::all_of(sums.values().begin() + 256, sums.values().begin() + 768,
                    [](int64_t v) { return v == 0; }));
  CHECK(sums.values()[255] != 0);
  CHECK(sums.values()[768] != 0);
  sums.clear();
  CHECK(std::ranges::count(sums.values(), 0) == layout.elements());
  ExactSink sink(sums, {});
  CHECK_THROWS_AS(sink.fold(1, view_of(values.data(), 1, 255)), CheckFailure);
  CHECK_THROWS_AS(sink.fold(0, view_of(values.data(), 1, 255)), CheckFailure);
  CHECK_THROWS_AS(ExactSink(sums, FoldOptions{25, 1, 0}), CheckFailure);
  CHECK_THROWS_AS(ExactSink(sums, FoldOptions{1, 1, 0}), CheckFailure);
  ExactAccumulator empty{BlockLayout()};
  ExactSink(empty, {}).fold(0, view_of(values.data(), 0, 0));
  CHECK(empty.values().empty());
}

TEST_CASE("a gathering sink adds plain floats at their places") {
  GatherSink sink(10);
  const std::vector<float> values{1, 2, 3};
  sink.fold(4, view_of(values.data(), 1, 3));
  sink.fold(5, view_of(values.data(), 1, 3));
  CHECK(sink.values() == std::vector<float>{0, 0, 0, 0, 1, 3, 5, 3, 0, 0});
  CHECK_THROWS_AS(sink.fold(8, view_of(values.data(), 1, 3)), CheckFailure);
}
