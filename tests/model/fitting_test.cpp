#include "model/fitting.hpp"

#include <algorithm>

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"
#include "model/slot_arena.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

size_t held = 0, most_held = 0;  // bytes of buffers that are alive

// Allocates nothing, and counts.
class CountingBackend final : public kernels::Backend {
 public:
  kernels::Device device() const override { return {}; }
  std::string description() const override { return "counts"; }
  kernels::Buffer allocate(size_t bytes) override {
    held += bytes;
    most_held = std::max(most_held, held);
    return {this, bytes, {}, [](void*, size_t freed, kernels::Device) { held -= freed; }};
  }
  std::unique_ptr<kernels::Stream> create_stream() override { return nullptr; }
  void copy_to_host(kernels::ConstView, void*) override {}
  void copy_from_host(const void*, kernels::View) override {}
};

}  // namespace

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

TEST_CASE("an arena that is too small is given back before a larger one is taken, and one that fits stays") {
  CountingBackend backend;
  held = most_held = 0;
  {
    std::optional<kernels::Arena> arena;
    CHECK(with_room(arena, 1000, backend).capacity() == 1000);
    CHECK(with_room(arena, 3000, backend).capacity() == 3000);
    CHECK(with_room(arena, 2000, backend).capacity() == 3000);
    CHECK(held == 3000);
    CHECK(most_held == 3000);
  }
  CHECK(held == 0);
}
