#include "model/fitting.hpp"

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

TEST_CASE("the tokens that are said to fit do so in sentences of any length, and one more does not") {
  constexpr int64_t kMost = 200;
  for (const ModelConfig& config : {tiny_config(), gpt2_config(2, 16, 2, 29, 32)}) {
    const auto model = make_model(config);
    const size_t one = model->arena_bytes(1, 1, true);
    CHECK(tokens_that_fit(*model, 0, kMost) == 0);
    CHECK(tokens_that_fit(*model, one - 1, kMost) == 0);
    CHECK(tokens_that_fit(*model, one, 0) == 0);
    CHECK(tokens_that_fit(*model, one, kMost) == 1);
    CHECK(tokens_that_fit(*model, size_t{1} << 40, kMost) == kMost);
    for (const int64_t tokens : {3, 32, 33, 100, 199}) {
      CAPTURE(tokens);
      for (const size_t more : {0, 1, 1000}) {
        const size_t bytes = model->arena_bytes(tokens, tokens, true) + more;
        const int64_t fitting = tokens_that_fit(*model, bytes, kMost);
        CHECK(fitting >= 1);
        CHECK(fitting < kMost);
        CHECK(model->arena_bytes(fitting + 1, fitting + 1, true) > bytes);
        for (int64_t rows = 1; rows <= fitting; ++rows)
          for (const bool training : {true, false})
            CHECK(model->arena_bytes(rows, fitting, training) <= bytes);
      }
    }
  }
}

TEST_CASE("the parameters that are said to fit have the state's bytes each") {
  CHECK(parameters_that_fit(2400, 1000, 24'000) == 100);
  CHECK(parameters_that_fit(2399, 1000, 24'000) == 99);
  CHECK(parameters_that_fit(0, 1000, 24'000) == 0);
  CHECK(parameters_that_fit(size_t{1} << 40, 10, 25) == int64_t(double(size_t{1} << 40) / 2.5));
  CHECK_THROWS_AS(parameters_that_fit(1, 0, 0), CheckFailure);
}
