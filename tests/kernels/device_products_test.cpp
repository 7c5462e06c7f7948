// Products that do more than multiply, on every device: activations and column sums.
#include "kernels/cuda/device/activation.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

struct Shape {
  int64_t M, N, K, gap;
};

// pre, y and dpre of a linear operation from K to N channels with an activation behind it, and one from N to
// K behind that.
Results feed_forward(TestDevice& device, const Shape& s, DType dtype, Activation kind, float rate) {
  Stream& stream = device.stream();
  const PlacedWeight inner(device, random_bf16(s.N, s.K, 2), dtype),
      outer(device, random_bf16(s.K, s.N, 5), dtype);
  const Placed x(device, dtype, random_bf16(s.M, s.K, 1), s.gap),
      bias(device, DType::f32, random_bf16(1, s.N, 4)), dy(device, dtype, random_bf16(s.M, s.K, 3), s.gap),
      pre(device, dtype, s.M, s.N, s.gap), y(device, dtype, s.M, s.N, s.gap), bare(device, dtype, s.M, s.N),
      bare_pre(device, dtype, s.M, s.N), dpre(device, dtype, s.M, s.N, s.gap);
  const Dropout dropout{rate, 11};
  stream.linear_activation_forward(x.view(), inner.weight, bias.view(), {kind, dropout, pre.view()},
                                   y.view());
  stream.linear_activation_forward(x.view(), inner.weight, {}, {kind, dropout, bare_pre.view()}, bare.view());
  stream.linear_activation_backward_input(dy.view(), outer.weight, {kind, dropout, pre.view()}, dpre.view());
  return {pre.values(), y.values(), bare_pre.values(), bare.values(), dpre.values()};
}

// The same by operations of their own.
Results apart(TestDevice& device, const Shape& s, DType dtype, Activation kind) {
  Stream& stream = device.stream();
  const PlacedWeight inner(device, random_bf16(s.N, s.K, 2), dtype),
      outer(device, random_bf16(s.K, s.N, 5), dtype);
  const Placed x(device, dtype, random_bf16(s.M, s.K, 1), s.gap),
      bias(device, DType::f32, random_bf16(1, s.N, 4)), dy(device, dtype, random_bf16(s.M, s.K, 3), s.gap),
      pre(device, dtype, s.M, s.N, s.gap), y(device, dtype, s.M, s.N, s.gap),
      dpre(device, dtype, s.M, s.N, s.gap);
  stream.linear_forward(x.view(), inner.weight, bias.view(), pre.view());
  stream.activation_forward(kind, pre.view(), {}, y.view());
  stream.linear_backward_input(dy.view(), outer.weight, dpre.view(), false);
  stream.activation_backward(kind, pre.view(), {}, dpre.view(), dpre.view());
  return {pre.values(), y.values(), dpre.values()};
}

// Aligned and not; one element; none; several blocks of a kernel.
const std::vector<Shape> kShapes{{16, 24, 32, 0}, {3, 8, 16, 8}, {33, 40, 24, 0}, {2, 3, 5, 3},
                                 {17, 33, 31, 0}, {1, 1, 1, 0},  {0, 8, 8, 0},    {300, 16, 8, 0}};

}  // namespace

TEST_CASE("a linear operation with its activation agrees with the CPU on every device, both ways") {
  for (const Shape& s : kShapes)
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Activation kind : {Activation::gelu, Activation::relu})
        for (const float rate : {0.0f, 0.3f}) {
          CAPTURE(s.M);
          CAPTURE(s.N);
          CAPTURE(to_string(dtype));
          CAPTURE(int(kind));
          CAPTURE(rate);
          check_devices([&](TestDevice& device) { return feed_forward(device, s, dtype, kind, rate); },
                        {tolerance(dtype)});
        }
}

TEST_CASE("an activation in a product takes the unrounded sum, and is otherwise the kernel's") {
  const Shape shape{16, 24, 32, 8};
  for (const auto& device : other_test_devices()) {
    if (!device->name().starts_with("emulated")) continue;
    CAPTURE(device->name());
    const Results fused = feed_forward(*device, shape, DType::f32, Activation::gelu, 0),
                  separate = apart(*device, shape, DType::f32, Activation::gelu);
    CHECK(same_bits(fused[0], separate[0]));
    CHECK(same_bits(fused[1], separate[1]));
    CHECK(same_bits(fused[4], separate[2]));

    const Results narrow = feed_forward(*device, shape, DType::bf16, Activation::gelu, 0),
                  narrow_apart = apart(*device, shape, DType::bf16, Activation::gelu);
    CHECK(same_bits(narrow[0], narrow_apart[0]));
    CHECK_FALSE(same_bits(narrow[1], narrow_apart[1]));
    for (size_t i = 0; i < separate[1].values.size(); ++i)
      CHECK(narrow[1].values[i] == round_to_bf16(device::gelu(separate[0].values[i])));
    // The rounding of dy W is left out too.
    Matrix once = separate[2];
    CHECK_FALSE(same_bits(narrow[4], narrow_apart[2]));
    CHECK(distance(narrow[4], once) <= distance(narrow_apart[2], once));

    // Where there is no such product there are two operations.
    const Shape odd{16, 23, 32, 0};
    const Results plain = feed_forward(*device, odd, DType::bf16, Activation::gelu, 0),
                  plain_apart = apart(*device, odd, DType::bf16, Activation::gelu);
    CHECK(same_bits(plain[1], plain_apart[1]));
    CHECK(same_bits(plain[4], plain_apart[2]));
  }
}

TEST_CASE("views of unequal shapes or types around an activation are refused") {
  for (const auto& device : other_test_devices()) {
    const PlacedWeight weight(*device, Matrix(8, 8, 1), DType::bf16);
    const Placed x(*device, DType::bf16, 4, 8), y(*device, DType::bf16, 4, 8),
        pre(*device, DType::bf16, 5, 8), wide(*device, DType::f32, 4, 8);
    for (const Placed* wrong : {&pre, &wide}) {
      CHECK_THROWS_AS(device->stream().linear_activation_forward(
                          x.view(), weight.weight, {}, {Activation::gelu, {}, wrong->view()}, y.view()),
                      CheckFailure);
      CHECK_THROWS_AS(device->stream().linear_activation_backward_input(
                          x.view(), weight.weight, {Activation::gelu, {}, wrong->view()}, y.view()),
                      CheckFailure);
    }
  }
}

TEST_CASE("a packed weight is whole words of its own, whatever the memory held before") {
  for (const auto& device : other_test_devices()) {
    CAPTURE(device->name());
    const Placed master(*device, DType::f32, random_bf16(3, 5, 1));
    const size_t bytes = device->stream().packed_bytes(3, 5, DType::bf16);
    const std::vector<char> before(bytes, 0x55);
    const Buffer memory = device->allocate(bytes);
    device->copy_in(memory.data(), before.data(), bytes);
    device->stream().pack(master.view(), DType::bf16, memory.data());
    std::vector<char> after(bytes);
    device->copy_out(after.data(), memory.data(), bytes);
    CHECK(after[30] == 0);
    CHECK(after[31] == 0);
    CHECK(after[32] == 0x55);
  }
}
