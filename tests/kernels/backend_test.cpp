#include "kernels/cpu/backend.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {
// oneDNN fixes its instruction-set level at its first use in a process: before any test makes a stream of its
// own.
[[maybe_unused]] const std::unique_ptr<Backend> first_backend = make_cpu_backend();
}  // namespace

TEST_CASE("the backend says what it computes with, and makes streams") {
  const auto backend = make_cpu_backend();
  CHECK(backend->description().find("x86-64-" + std::string(to_string(best_isa_level()))) !=
        std::string::npos);
  CHECK(backend->description().find("oneDNN") != std::string::npos);
  CHECK(backend->create_stream()->device() == backend->device());
}

TEST_CASE("levels have names, and other names are none") {
  for (const IsaLevel level : machine_levels()) CHECK(parse_isa_level(to_string(level)) == level);
  CHECK(!parse_isa_level("v5"));
  CHECK(!parse_isa_level(""));
}

TEST_CASE("a process computes at one level: another is refused by name") {
  for (const IsaLevel level : {IsaLevel::v2, IsaLevel::v3, IsaLevel::v4}) {
    if (level == best_isa_level()) continue;
    try {
      make_cpu_backend(level);
      FAIL("made a backend of level ", to_string(level));
    } catch (const Error& refusal) {
      CHECK(refusal.kind() == ErrorKind::device);
      CHECK(std::string(refusal.what()).find(to_string(level)) != std::string::npos);
    }
  }
}

TEST_CASE("matrices are copied to and from the host across strides") {
  const auto backend = make_cpu_backend();
  const Buffer memory = backend->allocate(3 * 7 * sizeof(float));
  const View rows{memory.data(), DType::f32, 3, 5, 7};
  const Matrix values = random_matrix(3, 5, 1);
  backend->copy_from_host(values.values.data(), rows);
  Matrix back(3, 5);
  backend->copy_to_host(rows, back.values.data());
  CHECK(back.values == values.values);
}

TEST_CASE("a stream's thread takes denormals for zero and rounds to nearest even") {
  const auto stream = make_cpu_backend()->create_stream();
  volatile float tiny = std::numeric_limits<float>::denorm_min();
  CHECK(tiny * 4.0f == 0.0f);
  volatile float one = 1.0f, half_ulp = 0x1p-24f;
  CHECK(one + half_ulp == 1.0f);
}
