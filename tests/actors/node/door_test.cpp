#include "actors/node/door.hpp"

#include <doctest/doctest.h>

using namespace troupe::actors;

TEST_CASE("what comes before a door opens is delivered when it does, in order, and nothing after it closes") {
  Door door;
  std::vector<int> delivered;
  const auto pass = [&](int value) { return door.pass([&, value] { delivered.push_back(value); }); };
  CHECK(pass(1));
  CHECK(pass(2));
  CHECK(delivered.empty());
  door.open();
  CHECK(delivered == std::vector<int>{1, 2});
  CHECK(pass(3));
  CHECK(delivered == std::vector<int>{1, 2, 3});
  door.close();
  CHECK(!pass(4));
  CHECK(delivered == std::vector<int>{1, 2, 3});
}

TEST_CASE("so much may wait at a door, and no more") {
  Door door;
  size_t delivered = 0;
  for (size_t i = 0; i < Door::kWaitingMax; ++i) CHECK(door.pass([&] { ++delivered; }));
  CHECK(!door.pass([&] { ++delivered; }));
  door.open();
  CHECK(delivered == Door::kWaitingMax);
}
