#include <cmath>

#include <doctest/doctest.h>

#include "kernels/reference/linear.hpp"
#include "tests/kernels/packed.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

Packed for_inference(CpuStream& stream, const Matrix& w, DType dtype) {
  return {stream, w, {dtype, Packing::inference}};
}

Matrix plain_product(const Matrix& x, const Matrix& w, const float* bias) {
  Matrix y(x.rows, w.rows);
  reference::linear_forward(x.values.data(), w.values.data(), bias, x.rows, w.rows, x.cols, y.values.data());
  return y;
}

}  // namespace

TEST_CASE(
    "linear with a weight packed for inference agrees with plain loops at every level, type and odd shape") {
  for (const IsaLevel level : machine_levels())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool to_f32 : {true, false})
        for (const LinearShape& s : kLinearShapes) {
          CAPTURE(to_string(level));
          CAPTURE(to_string(dtype));
          CAPTURE(s.M);
          CAPTURE(s.N);
          CAPTURE(s.K);
          CpuStream stream(level);
          const Matrix x = random_bf16(s.M, s.K, 1), w = random_bf16(s.N, s.K, 2),
                       bias = random_matrix(1, s.N, 3);
          const Packed packed = for_inference(stream, w, dtype);
          const DType out = to_f32 ? DType::f32 : dtype;
          const Strided in(dtype, x, s.gap), y(out, s.M, s.N, s.gap), bare(out, s.M, s.N, s.gap);
          stream.linear_forward(in.view(), packed.weight, bias.view(), y.view());
          stream.linear_forward(in.view(), packed.weight, {}, bare.view());
          CHECK(distance(y.values(), plain_product(x, w, bias.values.data())) < tolerance(out));
          CHECK(distance(bare.values(), plain_product(x, w, nullptr)) < tolerance(out));
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
      const Packed packed = for_inference(stream, w, dtype);
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

TEST_CASE(
    "packed for inference, an element in f32 is one chain of sums, however deep and whatever the rows") {
  constexpr int64_t kRows = 67, kChannels = 21, kDepth = 2309;
  const Matrix x = random_matrix(kRows, kDepth, 1), w = random_matrix(kChannels, kDepth, 2),
               bias = random_matrix(1, kChannels, 3);
  Matrix chains(kRows, kChannels);
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t n = 0; n < kChannels; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < kDepth; ++k)
        sum = std::fma(x.values[size_t(r * kDepth + k)], w.values[size_t(n * kDepth + k)], sum);
      chains.values[size_t(r * kChannels + n)] = sum + bias.values[size_t(n)];
    }
  for (const IsaLevel level : machine_levels()) {
    if (level == IsaLevel::v2) continue;  // rounds twice
    CAPTURE(to_string(level));
    CpuStream stream(level);
    const Packed packed = for_inference(stream, w, DType::f32);
    const Strided y(DType::f32, kRows, kChannels);
    stream.linear_forward(x.view(), packed.weight, bias.view(), y.view());
    CHECK(y.values().values == chains.values);
  }
}

TEST_CASE("packing for inference writes every byte of the weight's place, whatever lay there") {
  for (const IsaLevel level : machine_levels())
    for (const PackedType type : {PackedType(DType::f32, Packing::inference),
                                  PackedType(DType::bf16, Packing::inference), PackedType(DType::i8)})
      for (const LinearShape& s : kLinearShapes) {
        CAPTURE(to_string(level));
        CAPTURE(to_string(type.dtype));
        CAPTURE(s.N);
        CAPTURE(s.K);
        CpuStream stream(level);
        const Matrix w = random_matrix(s.N, s.K, 1);
        const size_t bytes = stream.packed_bytes(s.N, s.K, type);
        const auto packed_over = [&](int before) {
          const Buffer memory = allocate_host(bytes);
          std::memset(memory.data(), before, bytes);
          stream.pack(w.view(), type, memory.data());
          const auto* const packed = static_cast<const char*>(memory.data());
          return std::vector<char>(packed, packed + bytes);
        };
        CHECK(packed_over(0xaa) == packed_over(0x55));
      }
}

TEST_CASE("a weight packed for inference is not taken for training") {
  CpuStream stream(best_isa_level());
  const Matrix w = random_matrix(4, 6, 1), dy = random_matrix(2, 4, 2);
  Matrix dx(2, 6);
  const Packed packed = for_inference(stream, w, DType::f32);
  CHECK_THROWS_AS(stream.linear_backward_input(dy.view(), packed.weight, dx.view(), false), CheckFailure);
}
