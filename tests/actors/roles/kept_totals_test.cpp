#include "actors/roles/kept_totals.hpp"

#include <doctest/doctest.h>

using troupe::actors::KeptTotals;

namespace {

KeptTotals::Bytes bytes(size_t count) {
  return std::make_shared<const std::vector<std::byte>>(count);
}

}  // namespace

TEST_CASE("totals of consecutive steps are kept, the oldest dropped beyond the bytes allowed") {
  KeptTotals totals(100);
  for (int64_t step = 7; step < 12; ++step) totals.keep(step, bytes(30));
  CHECK(totals.first() == 9);
  CHECK(totals.find(8) == nullptr);
  CHECK(totals.find(9) != nullptr);
  CHECK(totals.find(11) != nullptr);
  CHECK(totals.find(12) == nullptr);
  totals.keep(12, bytes(1000));  // the newest stays, however large
  CHECK(totals.first() == 12);
  CHECK(totals.find(12)->size() == 1000);
}

TEST_CASE("after a gap nothing of before it is offered") {
  KeptTotals totals(100);
  totals.keep(3, bytes(10));
  totals.keep(4, bytes(10));
  totals.keep(9, bytes(10));
  CHECK(totals.first() == 9);
  CHECK(totals.find(4) == nullptr);
  totals.keep(5, bytes(10));  // back, as after a state that is older
  CHECK(totals.first() == 5);
  CHECK(totals.find(9) == nullptr);
  totals.clear();
  CHECK(totals.empty());
  CHECK(totals.find(5) == nullptr);
}
