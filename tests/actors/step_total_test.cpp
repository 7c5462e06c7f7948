#include "actors/step_total.hpp"

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

StepTotal example() {
  StepTotal total;
  total.seal = {{{7, 2}, 40}, {{0, scheduler::SlotSet::first(70)}, {3, scheduler::SlotSet::first(2)}}, 41};
  total.sum = {1, -2, 3, -4, 5, {6, -7, 8}, 3};
  total.total.mantissa = {1, -2, INT32_MAX, INT32_MIN};
  total.total.shift = {0, 255};
  return total;
}

}  // namespace

TEST_CASE("a step's total arrives as it was sent") {
  const StepTotal sent = example();
  const StepTotal got = step_total_of(to_bytes(sent));
  CHECK(got.seal == sent.seal);
  CHECK(got.sum == sent.sum);
  CHECK(got.total == sent.total);
}

TEST_CASE("a total that is damaged, cut off or empty is refused") {
  const std::vector<std::byte> bytes = to_bytes(example());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i] ^= std::byte{4};
    CHECK_THROWS_AS(step_total_of(damaged), Error);
    CHECK_THROWS_AS(step_total_of(std::span(bytes).first(i)), Error);
  }
}
