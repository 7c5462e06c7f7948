#include "kernels/cpu/loops/convert.hpp"

#include <cstring>
#include <limits>
#include <set>

#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

TEST_CASE("f32 becomes bf16 by rounding to nearest even, with the same bits at every level") {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> from = {0.0f,        -0.0f,        1.0f,     1.00390625f,
                             1.01171875f, -1.00390625f, infinity, -infinity,
                             3.4e38f,     1e-39f,       -1e-39f,  std::numeric_limits<float>::quiet_NaN(),
                             1.2e-38f};
  const Matrix random = random_matrix(1, 1000, 5, 100);
  from.insert(from.end(), random.values.begin(), random.values.end());
  std::set<std::vector<uint16_t>> results;
  for (const IsaLevel level : machine_levels()) {
    std::vector<uint16_t> to(from.size() + 1, 0x1234);
    loops_of(level).convert->to_bf16(from.data(), to.data(), int64_t(from.size()));
    CHECK(to.back() == 0x1234);
    CHECK(to[2] == 0x3f80);
    CHECK(to[3] == 0x3f80);  // half-way to the even neighbour below
    CHECK(to[4] == 0x3f82);  // half-way to the even neighbour above
    CHECK(to[8] == 0x7f80);
    CHECK(to[9] == 0);
    CHECK(to[10] == 0x8000);
    CHECK((to[11] & 0x7fc0) == 0x7fc0);
    results.insert(to);
  }
  CHECK(results.size() == 1);
}

TEST_CASE("convert, add and fill_zero respect strides at any count") {
  for (const IsaLevel level : machine_levels()) {
    CpuStream stream(level);
    for (const int64_t cols : {0, 1, 15, 16, 17, 33})
      for (const int64_t gap : {0, 3}) {
        const Matrix values = random_bf16(3, cols, 1), other = random_bf16(3, cols, 2);
        const Strided f32(DType::f32, values, gap), bf16(DType::bf16, 3, cols, gap),
            back(DType::f32, 3, cols);
        stream.convert(f32.view(), bf16.view());
        CHECK(bf16.values().values == values.values);
        stream.convert(bf16.view(), back.view());
        CHECK(back.values().values == values.values);
        const Strided sum(DType::f32, other, gap);
        stream.add(f32.view(), sum.view());
        Matrix expected = other;
        for (size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += values.values[i];
        CHECK(sum.values().values == expected.values);
        stream.fill_zero(sum.view());
        CHECK(sum.values().values == Matrix(3, cols).values);
      }
  }
}

TEST_CASE("scratch memory is one chunk after the first use, and frames nest") {
  Scratch scratch;
  for (int step = 0; step < 2; ++step) {
    const size_t before = scratch.bytes();
    {
      Scratch::Frame outer(scratch);
      char* a = outer.take<char>(1 << 20);
      {
        Scratch::Frame inner(scratch);
        CHECK(inner.take<char>(3 << 20) != a);
      }
      CHECK(reinterpret_cast<uintptr_t>(outer.take<float>(5)) % 64 == 0);
    }
    if (step == 1) CHECK(scratch.bytes() == before);
  }
}
