#include "actors/roles/samples_ahead.hpp"

#include <map>
#include <numeric>

#include <doctest/doctest.h>

#include "kernels/base/batch.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

struct Counted {
  explicit Counted(size_t most)
      : ahead(most, [this](int64_t step, uint32_t slot) {
          ++made[{step, slot}];
          return std::make_shared<const Batch>();
        }) {}
  std::map<std::pair<int64_t, uint32_t>, int> made;
  SamplesAhead ahead;
};

std::vector<uint32_t> slots(uint32_t first, uint32_t end) {
  std::vector<uint32_t> out(end - first);
  std::iota(out.begin(), out.end(), first);
  return out;
}

}  // namespace

TEST_CASE("many workers' samples are made once each, before they are asked for") {
  constexpr uint32_t kWorkers = 96;
  Counted counted(2 * kWorkers);
  for (int64_t step = 0; step < 3; ++step)
    for (uint32_t slot = 0; slot < 2 * kWorkers; ++slot) {
      counted.ahead.prefetch({step, slots(slot, 2 * kWorkers)});
      CHECK(counted.made.size() == size_t(step + 1) * 2 * kWorkers);
      counted.ahead.take(step, slot);
    }
  for (const auto& [slot, times] : counted.made) CHECK(times == 1);
}

TEST_CASE("samples that no hint names any more make room for others, and no more are kept than may be") {
  Counted counted(2);
  counted.ahead.prefetch({0, {0, 1}});
  counted.ahead.prefetch({1, {5, 6, 7}});  // one too many
  CHECK(counted.made.size() == 4);
  counted.ahead.prefetch({1, {6, 8}});
  CHECK(counted.made.size() == 5);
  for (const uint32_t slot : {6u, 8u, 7u, 5u}) CHECK(counted.ahead.take(1, slot).slot == slot);
  CHECK(counted.made[{1, 6}] == 1);
  CHECK(counted.made[{1, 8}] == 1);
  CHECK(counted.made[{1, 7}] == 1);
  CHECK(counted.made[{1, 5}] == 2);
}
