#include "kernels/base/random.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

// With fused multiply-add in the CPU's loops, exp and tanh have the same bits everywhere.
double elementary_tolerance() {
  return best_isa_level() == IsaLevel::v2 ? 1e-6 : kSameBits;
}

struct Shape {
  int64_t rows, cols, gap;
};
constexpr Shape kShapes[] = {{0, 8, 0},    {1, 1, 0},    {3, 17, 4},   {2, 1030, 0}, {5, 48, 2},
                             {5, 48, 8},   {1, 2048, 0}, {1, 2049, 0}, {9, 256, 0},  {33, 64, 16},
                             {7, 2056, 0}, {1, 255, 0},  {1, 257, 1}};

}  // namespace

TEST_CASE("activations and their gradients give the CPU's bits on every device") {
  for (const Shape& s : kShapes)
    for (const Activation kind : {Activation::relu, Activation::gelu})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const float rate : {0.0f, 0.4f}) {
          CAPTURE(s.rows);
          CAPTURE(s.cols);
          CAPTURE(s.gap);
          const Matrix x = random_bf16(s.rows, s.cols, 1, 4), d = random_bf16(s.rows, s.cols, 2);
          check_devices(
              [&](TestDevice& device) {
                const Placed in(device, dtype, x, s.gap), out(device, dtype, s.rows, s.cols, s.gap / 2),
                    dy(device, dtype, d, s.gap);
                device.stream().activation_forward(kind, in.view(), {rate, 17}, out.view());
                device.stream().activation_backward(kind, in.view(), {rate, 17}, dy.view(), dy.view());
                return Results{out.values(), dy.values()};
              },
              {kind == Activation::relu ? kSameBits : elementary_tolerance()});
        }
}

TEST_CASE("convert, add and fill_zero give the CPU's bits on every device") {
  for (const Shape& s : kShapes) {
    CAPTURE(s.rows);
    CAPTURE(s.cols);
    CAPTURE(s.gap);
    const Matrix x = random_matrix(s.rows, s.cols, 1, 100), y = random_matrix(s.rows, s.cols, 2);
    check_devices(
        [&](TestDevice& device) {
          Stream& stream = device.stream();
          const Placed from(device, DType::f32, x, s.gap), narrow(device, DType::bf16, s.rows, s.cols, s.gap),
              back(device, DType::f32, s.rows, s.cols), copy(device, DType::f32, s.rows, s.cols, s.gap),
              sum(device, DType::f32, y, s.gap), zero(device, DType::bf16, x, s.gap);
          stream.convert(from.view(), narrow.view());
          stream.convert(narrow.view(), back.view());
          stream.convert(from.view(), copy.view());
          stream.add(from.view(), sum.view());
          stream.fill_zero(zero.view());
          return Results{narrow.values(), back.values(), copy.values(), sum.values(), zero.values()};
        },
        {kSameBits});
  }
}

TEST_CASE("special values become bf16 as on the CPU") {
  const float infinity = std::numeric_limits<float>::infinity();
  Matrix x(1, 16);
  x.values = {0.0f,    -0.0f,    1.00390625f, 1.01171875f, infinity, -infinity, 3.4e38f, 1e-39f,
              -1e-39f, 1.2e-38f, -3.4e38f,    1.0f,        65504.0f, -1e-45f,   2.0f,    0x1p-126f};
  check_devices(
      [&](TestDevice& device) {
        const Placed from(device, DType::f32, x), to(device, DType::bf16, 1, 16);
        device.stream().convert(from.view(), to.view());
        return Results{to.values()};
      },
      {kSameBits});
}

TEST_CASE("embeddings and their gradients give the CPU's bits on every device") {
  struct Case {
    int64_t vocabulary, rows, cols, length, gap;  // length 0: no positions
    Dropout dropout;
  };
  constexpr int32_t kPad = 2;
  for (const Case& c :
       {Case{5, 12, 17, 4, 3, {0.2f, 6}}, Case{40, 33, 32, 11, 0, {0, 0}}, Case{3, 0, 8, 4, 0, {0, 0}},
        Case{9, 1, 1, 0, 0, {0, 0}}, Case{9, 20, 300, 0, 0, {0.5f, 1}}, Case{7, 25, 1032, 5, 8, {0.3f, 2}},
        Case{4, 9, 1025, 20, 0, {0.3f, 2}}}) {
    CAPTURE(c.rows);
    CAPTURE(c.cols);
    std::vector<int32_t> ids;
    for (int64_t row = 0; row < c.rows; ++row)
      ids.push_back(int32_t(mix64(4, uint64_t(row)) % uint64_t(std::min<int64_t>(c.vocabulary, 9))));
    const Matrix table = random_matrix(c.vocabulary, c.cols, 1),
                 positions = random_matrix(c.length, c.cols, 2), dout = random_matrix(c.rows, c.cols, 3);
    check_devices(
        [&](TestDevice& device) {
          const Placed words(device, DType::f32, table), places(device, DType::f32, positions),
              out(device, DType::f32, c.rows, c.cols, c.gap), d(device, DType::f32, dout, c.gap),
              dplaces(device, DType::f32, c.length, c.cols);
          const bool placed = c.length > 0;
          device.stream().embedding_forward(ids, words.view(), placed ? places.view() : View{}, 1.5f,
                                            c.dropout, out.view());
          HostSink sink(device, 1, 10 + c.vocabulary * c.cols);
          device.stream().embedding_backward(ids, kPad, 1.5f, c.dropout, d.view(), sink, 10,
                                             placed ? dplaces.view() : View{});
          return Results{out.values(), sink.sums, placed ? dplaces.values() : Matrix()};
        },
        {kSameBits});
  }
}
