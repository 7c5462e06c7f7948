#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

struct Packed {
  Packed(CpuStream& stream, const Matrix& w, DType dtype)
      : memory(allocate_host(stream.packed_bytes(w.rows, w.cols, {dtype, Packing::inference}))),
        weight(stream.pack(w.view(), {dtype, Packing::inference}, memory.data())) {}
  Buffer memory;
  PackedWeight weight;
};

Matrix plain_product(const Matrix& x, const Matrix& w, const Matrix& bias) {
  Matrix y(x.rows, w.rows);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t n = 0; n < w.rows; ++n) {
      double sum = bias.values.empty() ? 0 : double(bias.at(0, n));
      for (int64_t k = 0; k < x.cols; ++k) sum += double(x.at(r, k)) * double(w.at(n, k));
      y.at(r, n) = float(sum);
    }
  return y;
}

struct Shape {
  int64_t M, N, K, gap;
};
constexpr Shape kShapes[] = {{0, 4, 3, 0},    {1, 1, 1, 0},    {1, 16, 32, 0},
                             {2, 3, 5, 3},    {17, 33, 31, 0}, {12, 32, 64, 5},
                             {64, 96, 32, 0}, {31, 47, 70, 2}, {13, 15, 129, 7}};

}  // namespace

TEST_CASE(
    "linear with a weight packed for inference agrees with plain loops at every level, type and odd shape") {
  for (const IsaLevel level : machine_levels())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool to_f32 : {true, false})
        for (const Shape& s : kShapes) {
          CAPTURE(to_string(level));
          CAPTURE(to_string(dtype));
          CAPTURE(s.M);
          CAPTURE(s.N);
          CAPTURE(s.K);
          CpuStream stream(level);
          const Matrix x = random_bf16(s.M, s.K, 1), w = random_bf16(s.N, s.K, 2),
                       bias = random_matrix(1, s.N, 3);
          const Packed packed(stream, w, dtype);
          const DType out = to_f32 ? DType::f32 : dtype;
          const Strided in(dtype, x, s.gap), y(out, s.M, s.N, s.gap), bare(out, s.M, s.N, s.gap);
          stream.linear_forward(in.view(), packed.weight, bias.view(), y.view());
          stream.linear_forward(in.view(), packed.weight, {}, bare.view());
          CHECK(distance(y.values(), plain_product(x, w, bias)) < tolerance(out));
          CHECK(distance(bare.values(), plain_product(x, w, {})) < tolerance(out));
        }
}

TEST_CASE(
    "packed for inference, a row has the same bits alone as among others, and the weight the same form at "
    "all levels") {
  const Matrix x = random_bf16(61, 70, 1), w = random_matrix(45, 70, 2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    std::vector<std::byte> form;
    Matrix at_v3;
    for (const IsaLevel level : machine_levels()) {
      CAPTURE(to_string(level));
      CAPTURE(to_string(dtype));
      CpuStream stream(level);
      const Packed packed(stream, w, dtype);
      const Strided in(dtype, x), all(DType::f32, 61, 45), some(DType::f32, 61, 45);
      stream.linear_forward(in.view(), packed.weight, {}, all.view());
      for (int64_t first = 0, count = 1; first < 61; first += count, count = count % 7 + 1) {
        count = std::min(count, 61 - first);
        stream.linear_forward(in.view().row_range(first, count), packed.weight, {},
                              some.view().row_range(first, count));
      }
      CHECK(some.values().values == all.values().values);
      const auto* const bytes = static_cast<const std::byte*>(packed.memory.data());
      const std::vector<std::byte> here(bytes,
                                        bytes + stream.packed_bytes(45, 70, {dtype, Packing::inference}));
      CHECK((form.empty() || form == here));
      form = here;
      if (level == IsaLevel::v3) at_v3 = all.values();
      if (level == IsaLevel::v4 && dtype == DType::f32) CHECK(all.values().values == at_v3.values);
    }
  }
}

TEST_CASE("a weight packed for inference is not taken for training") {
  CpuStream stream(best_isa_level());
  const Matrix w = random_matrix(4, 6, 1), dy = random_matrix(2, 4, 2);
  Matrix dx(2, 6);
  const Packed packed(stream, w, DType::f32);
  CHECK_THROWS_AS(stream.linear_backward_input(dy.view(), packed.weight, dx.view(), false), CheckFailure);
}
