#include "model/beam_search.hpp"

#include <cmath>

#include <doctest/doctest.h>

using namespace troupe;
using model::Search;
using model::SearchLimits;

namespace {
constexpr int32_t kEos = 3;

struct Row {
  std::vector<std::pair<int32_t, float>> best;  // id, log probability
};
void step(Search& search, const std::vector<Row>& rows) {
  std::vector<float> values;
  std::vector<int32_t> ids;
  for (const Row& row : rows)
    for (const auto& [id, value] : row.best) {
      ids.push_back(id);
      values.push_back(value);
    }
  search.step(values, ids, int64_t(rows[0].best.size()));
}
}  // namespace

TEST_CASE("the length penalty is that of Wu et al. 2016") {
  CHECK(model::length_penalty(0, 50) == 1);
  CHECK(model::length_penalty(0.6, 1) == doctest::Approx(1));
  CHECK(model::length_penalty(0.6, 20) == doctest::Approx(std::pow(25.0 / 6, 0.6)));
}

TEST_CASE("a child stays at its parent's place, its siblings take places nobody needs") {
  Search search({3, 1, 0, 9, kEos});
  step(search, {{{{4, -1.f}, {5, -2.f}, {6, -3.f}, {7, -4.f}}}});
  REQUIRE(search.live().size() == 3);
  CHECK(search.live()[0].place == 0);
  CHECK(search.live()[1].place == 1);
  CHECK(search.live()[2].place == 2);
  // The second hypothesis has two children, the first one, the third none.
  step(search, {{{{4, -2.f}, {5, -9.f}, {6, -9.f}, {7, -9.f}}},
                {{{8, -0.1f}, {9, -0.2f}, {6, -9.f}, {7, -9.f}}},
                {{{4, -9.f}, {5, -9.f}, {6, -9.f}, {7, -9.f}}}});
  REQUIRE(search.live().size() == 3);
  CHECK(search.live()[0].tokens == std::vector<int32_t>{5, 8});
  CHECK(search.live()[0].place == 1);
  CHECK(search.live()[1].tokens == std::vector<int32_t>{5, 9});
  CHECK(search.live()[1].parent == 1);
  CHECK(search.live()[1].place == 2);
  CHECK(search.live()[2].tokens == std::vector<int32_t>{4, 4});
  CHECK(search.live()[2].place == 0);
}

TEST_CASE("the search stops early only when nothing live can overtake the n best") {
  // Finished at once with score -1; the live one has -2 and could reach -2 / penalty of 9 tokens with
  // alpha 1.
  Search open({2, 1, 1, 9, kEos});
  step(open, {{{{kEos, -1.f}, {5, -2.f}, {6, -9.f}}}});
  CHECK_FALSE(open.done());
  Search settled({2, 1, 0, 9, kEos});  // without penalty it can only get worse
  step(settled, {{{{kEos, -1.f}, {5, -2.f}, {6, -9.f}}}});
  REQUIRE(settled.done());
  const auto best = settled.take_results();
  REQUIRE(best.size() == 1);
  CHECK(best[0].tokens.empty());
  CHECK(best[0].finished);
}

TEST_CASE("at the length limit unfinished hypotheses count as they are") {
  Search search({2, 2, 0, 1, kEos});
  step(search, {{{{5, -0.5f}, {kEos, -1.f}, {6, -9.f}}}});
  REQUIRE(search.done());
  const auto results = search.take_results();
  REQUIRE(results.size() == 2);
  CHECK(results[0].tokens == std::vector<int32_t>{5});
  CHECK_FALSE(results[0].finished);
  CHECK(results[1].finished);
}

TEST_CASE("an end of sentence beyond the beam's first candidates does not finish") {
  Search search({1, 1, 0, 9, kEos});
  step(search, {{{{5, -0.5f}, {kEos, -0.6f}}}});
  CHECK_FALSE(search.done());
  CHECK(search.live()[0].tokens == std::vector<int32_t>{5});
}
