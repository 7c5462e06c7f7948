#include "actors/roles/step_total.hpp"

#include <cstring>

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"

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

// Where the head of a total's bytes ends.
size_t end_of_head(const std::vector<std::byte>& bytes) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data() + sizeof size, sizeof size);
  return 2 * sizeof size + size_t(size);
}

// With the checksum that a peer would have given it.
std::vector<std::byte> sealed(std::vector<std::byte> bytes) {
  const uint64_t checksum = checksum64(bytes.data() + sizeof checksum, bytes.size() - sizeof checksum);
  std::memcpy(bytes.data(), &checksum, sizeof checksum);
  return bytes;
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

TEST_CASE("a total whose peer has sealed nonsense is refused") {
  const std::vector<std::byte> bytes = to_bytes(example());
  const size_t end = end_of_head(bytes);
  CHECK(step_total_of(sealed(bytes)).seal == example().seal);
  for (size_t i = 2 * sizeof(uint64_t); i < end; ++i) {  // any byte of the head may be any number
    CAPTURE(i);
    std::vector<std::byte> damaged = bytes;
    damaged[i] = std::byte{0xff};
    try {
      step_total_of(sealed(damaged));
    } catch (const Error& refused) {
      CHECK(refused.kind() == ErrorKind::corrupt);
    }
  }
  std::vector<std::byte> many = bytes;
  const uint64_t elements = (uint64_t{1} << 62) + 4;  // four times this is four times four
  std::memcpy(many.data() + end - 2 * sizeof elements, &elements, sizeof elements);
  CHECK_THROWS_AS(step_total_of(sealed(many)), Error);
}
