#include "data/sorter.hpp"

#include "kernels/base/random.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

TEST_CASE("sorting is the same in memory and over many runs on disk") {
  const test::TemporaryFolder folder;
  for (const uint64_t count : {0u, 1u, 2u, 5000u}) {
    for (const size_t run_bytes : {size_t{100}, size_t{20'000}, size_t{1} << 30}) {
      if (run_bytes == 100 && count > 100) continue;
      CAPTURE(count);
      CAPTURE(run_bytes);
      ExternalSorter sorter(folder.path(), run_bytes);
      std::map<SortKey, std::string> expected;
      for (uint64_t i = 0; i < count; ++i) {
        const SortKey key{mix64(1, i) % 10, mix64(2, i), i};
        const std::string payload(mix64(3, i) % 50, char('a' + i % 26));
        sorter.add(key, payload);
        expected.emplace(key, payload);
      }
      CHECK(sorter.size() == count);
      SortKey key{};
      std::string_view payload;
      for (const auto& [wanted, text] : expected) {
        REQUIRE(sorter.next(&key, &payload));
        CHECK(key == wanted);
        CHECK(payload == text);
      }
      CHECK_FALSE(sorter.next(&key, &payload));
    }
  }
}

TEST_CASE("a payload longer than what is read at a time survives the merge") {
  const test::TemporaryFolder folder;
  ExternalSorter sorter(folder.path(), 1 << 20);
  for (uint64_t i = 0; i < 9; ++i) sorter.add({9 - i, 0, 0}, std::string(400'000, char('0' + i)));
  SortKey key{};
  std::string_view payload;
  for (uint64_t i = 1; i <= 9; ++i) {
    REQUIRE(sorter.next(&key, &payload));
    CHECK(key[0] == i);
    CHECK(payload == std::string(400'000, char('0' + (9 - i))));
  }
  CHECK_FALSE(sorter.next(&key, &payload));
}
