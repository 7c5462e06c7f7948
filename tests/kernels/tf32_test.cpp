// Products of f32 on tensor cores: what 10 bits of mantissa hold is multiplied exactly, other values nearly.
#include <bit>

#include "kernels/cuda/stream.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

Matrix cut(Matrix m) {
  for (float& v : m.values) v = std::bit_cast<float>(std::bit_cast<uint32_t>(v) & ~0x1fffu);
  return m;
}

// y = x w^T, dx = d w, dw = d^T x.
std::vector<Matrix> products(TestDevice& device, const Matrix& x, const Matrix& w, const Matrix& d) {
  Stream& stream = device.stream();
  const PlacedWeight packed(device, w, {DType::f32, Packing::training});
  const Placed in(device, DType::f32, x), dy(device, DType::f32, d), out(device, DType::f32, x.rows, w.rows),
      din(device, DType::f32, x.rows, x.cols), dw(device, DType::f32, w.rows, w.cols);
  stream.linear_forward(in.view(), packed.weight, {}, out.view());
  stream.linear_backward_input(dy.view(), packed.weight, din.view(), false);
  stream.linear_backward_weight(dy.view(), in.view(), dw.view(), {});
  return {out.values(), din.values(), dw.values()};
}

}  // namespace

TEST_CASE("in TF32, factors of 10 bits give the products of f32, and others nearly, on every device") {
  // Large enough for tensor cores: TF32 is allowed, and not demanded.
  const Matrix x = random_matrix(128, 256, 1), w = random_matrix(192, 256, 2), d = random_matrix(128, 192, 3);
  for (const auto& device : other_test_devices()) {
    auto* stream = dynamic_cast<CudaStream*>(&device->stream());
    if (stream == nullptr) continue;
    CAPTURE(device->name());
    const auto plain = products(*device, x, w, d), plain_cut = products(*device, cut(x), cut(w), cut(d));
    stream->set_tf32(true);
    const auto narrow = products(*device, x, w, d), narrow_cut = products(*device, cut(x), cut(w), cut(d));
    stream->set_tf32(false);
    for (size_t i = 0; i < plain.size(); ++i) {
      CAPTURE(i);
      CHECK(distance(narrow_cut[i], plain_cut[i]) < 1e-5);
      CHECK(distance(narrow[i], plain[i]) < 2e-3);
      CHECK(distance(narrow[i], plain[i]) > 1e-5);
    }
    const auto back = products(*device, x, w, d);
    for (size_t i = 0; i < plain.size(); ++i) CHECK(same_bits(back[i], plain[i]));
  }
}
