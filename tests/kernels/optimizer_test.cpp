#include "kernels/reference/optimizer.hpp"

#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

BlockLayout test_layout() {
  BlockLayout layout;
  layout.append(700, 700);
  layout.append(10 * 33, 33);
  layout.append(1, 1);
  return layout;
}

RoundedTotal test_total(const BlockLayout& layout) {
  RoundedTotal total;
  total.resize(layout);
  for (size_t i = 0; i < total.mantissa.size(); ++i) total.mantissa[i] = int32_t(mix64(1, i));
  for (size_t i = 0; i < total.shift.size(); ++i) total.shift[i] = uint8_t(mix64(2, i) % 12);
  return total;
}

double gradient_of(const BlockLayout& layout, const RoundedTotal& total, int64_t element) {
  for (int64_t index = 0; index < layout.blocks(); ++index) {
    const BlockLayout::Block block = layout.block(index);
    if (element < block.offset + block.count)
      return std::ldexp(double(total.mantissa[size_t(element)]), total.shift[size_t(index)] + kGridExponent);
  }
  return NAN;
}

struct Weights {
  Matrix weight, moment1, moment2;
};

Weights initial(const BlockLayout& layout) {
  Weights w{random_matrix(1, layout.elements(), 3), random_matrix(1, layout.elements(), 4, 0.1f),
            random_matrix(1, layout.elements(), 5, 0.01f)};
  for (float& v : w.moment2.values) v = std::abs(v);
  return w;
}

AdamW test_rule() {
  AdamW rule;
  rule.learning_rate = 0.01f;
  rule.beta1 = 0.9f;
  rule.beta2 = 0.98f;
  rule.epsilon = 1e-6f;
  rule.weight_decay = 0.1f;
  rule.bias_correction1 = 1 - 0.9f * 0.9f;
  rule.bias_correction2 = 1 - 0.98f * 0.98f;
  rule.gradient_scale = 0.5f;
  return rule;
}

}  // namespace

TEST_CASE("AdamW follows the reference over three steps, in ranges as in one piece, with one set of bits") {
  const BlockLayout layout = test_layout();
  const RoundedTotal total = test_total(layout);
  const AdamW rule = test_rule();
  std::vector<Weights> results;
  for (IsaLevel level : machine_levels()) {
    for (int64_t range : {layout.blocks(), int64_t{3}}) {
      CpuStream stream(level);
      Weights w = initial(layout);
      for (int step = 0; step < 3; ++step)
        for (int64_t begin = 0; begin < layout.blocks(); begin += range)
          stream.adamw(rule, layout, total, begin, std::min(begin + range, layout.blocks()),
                       w.weight.values.data(), w.moment1.values.data(), w.moment2.values.data());
      results.push_back(w);
      CHECK(w.weight.values == results.front().weight.values);
      CHECK(w.moment2.values == results.front().moment2.values);
    }
  }
  Weights expected = initial(layout);
  for (size_t i = 0; i < expected.weight.values.size(); ++i) {
    const double gradient = gradient_of(layout, total, int64_t(i)) * double(rule.gradient_scale);
    reference::AdamWState state{double(expected.weight.values[i]), double(expected.moment1.values[i]),
                                double(expected.moment2.values[i])};
    for (int step = 0; step < 3; ++step) state = reference::adamw(rule, gradient, state);
    expected.weight.values[i] = float(state.weight);
    expected.moment1.values[i] = float(state.moment1);
    expected.moment2.values[i] = float(state.moment2);
  }
  CHECK(distance(results.front().weight, expected.weight) < 1e-6);
  CHECK(distance(results.front().moment1, expected.moment1) < 1e-6);
  CHECK(distance(results.front().moment2, expected.moment2) < 1e-6);
}

TEST_CASE("squares of the gradients are summed block by block, the same bits at every level") {
  const BlockLayout layout = test_layout();
  const RoundedTotal total = test_total(layout);
  std::vector<std::vector<double>> results;
  for (IsaLevel level : machine_levels()) {
    CpuStream stream(level);
    std::vector<double> sums(size_t(layout.blocks()));
    stream.block_square_sums(layout, total, 0, 5, sums.data());
    stream.block_square_sums(layout, total, 5, layout.blocks(), sums.data() + 5);
    results.push_back(sums);
    CHECK(sums == results.front());
  }
  layout.for_each(0, layout.blocks(), [&](int64_t index, BlockLayout::Block block) {
    double expected = 0;
    for (int64_t i = block.offset; i < block.offset + block.count; ++i)
      expected += std::pow(gradient_of(layout, total, i), 2);
    CHECK(std::abs(results.front()[size_t(index)] / expected - 1) < 1e-13);
  });
}

TEST_CASE("the fixed tree adds every number once, in an order that only their count decides") {
  for (size_t count : {0u, 1u, 2u, 3u, 7u, 8u, 9u, 1000u}) {
    std::vector<double> values(count);
    double exact = 0;
    for (size_t i = 0; i < count; ++i) exact += values[i] = double(mix64(1, i) >> 40);
    CHECK(fixed_tree_sum(values) == exact);  // integers: no rounding in any order
  }
  const std::vector<double> order{1, 0x1p-60, 0x1p-60, 0x1p-60, -1};
  CHECK(fixed_tree_sum(order) == 0x1p-59 * 0 + ((1 + 0x1p-60) + (0x1p-60 + 0x1p-60)) - 1);
}
