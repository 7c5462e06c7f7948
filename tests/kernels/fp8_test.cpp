// The two 8-bit formats, code by code, and products in them against plain sums over the decoded factors.
#include "kernels/cuda/device/fp8.hpp"

#include "kernels/cuda/device/activation.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;
using device::E4M3;
using device::E5M2;

namespace {

// What a code means, by the paper: sign, exponent and mantissa, without bit tricks. NaN where it has no
// value.
template <typename Format>
double meaning(int code) {
  const int exponent = code % 128 >> Format::kMantissa, mantissa = code % (1 << Format::kMantissa);
  const double fraction = double(mantissa) / (1 << Format::kMantissa);
  const double sign = code < 128 ? 1 : -1;
  const bool is_e5m2 = Format::kMantissa == 2;
  if (is_e5m2 && exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  if (!is_e5m2 && code % 128 == 127) return NAN;
  return sign * (exponent == 0 ? std::ldexp(fraction, 1 - Format::kBias)
                               : std::ldexp(1 + fraction, exponent - Format::kBias));
}

template <typename Format>
void check_format(int largest_code) {
  CHECK(meaning<Format>(largest_code) == double(Format::kLargest));
  for (int code = 0; code < 256; ++code) {
    CAPTURE(code);
    const double value = meaning<Format>(code);
    const float decoded = device::decode<Format>(uint8_t(code));
    if (std::isnan(value)) {
      CHECK(std::isnan(decoded));
      continue;
    }
    CHECK(double(decoded) == value);
    CHECK(std::signbit(decoded) == (code >= 128));
    if (std::isfinite(value)) CHECK(device::encode<Format>(decoded) == code);
  }
  for (int code = 0; code < largest_code; ++code) {  // what lies between two codes, of both signs
    CAPTURE(code);
    const float low = device::decode<Format>(uint8_t(code)), high = device::decode<Format>(uint8_t(code + 1)),
                middle = (low + high) / 2;
    const int even = code % 2 == 0 ? code : code + 1;
    CHECK(device::encode<Format>(middle) == even);
    CHECK(device::encode<Format>(-middle) == even + 128);
    CHECK(device::encode<Format>(std::nextafter(middle, 0.0f)) == code);
    CHECK(device::encode<Format>(std::nextafter(middle, HUGE_VALF)) == code + 1);
  }
  for (const float beyond : {Format::kLargest * 1.01f, Format::kLargest * 2, 3e38f, HUGE_VALF}) {
    CHECK(device::encode<Format>(beyond) == largest_code);
    CHECK(device::encode<Format>(-beyond) == largest_code + 128);
  }
  CHECK(std::isnan(device::decode<Format>(device::encode<Format>(NAN))));
  CHECK(device::encode<Format>(1e-30f) == 0);
  CHECK(device::encode<Format>(-0.0f) == 128);
}

bool multiplies_fp8(TestDevice& device) {
  try {
    device.stream().packed_bytes(16, 16, {DType::bf16, Packing::fp8});
    return true;
  } catch (const Error& refusal) {
    return refusal.kind() != ErrorKind::device;
  }
}

// x as its codes say, by the definition: one scale from the largest magnitude.
template <typename Format>
Matrix rounded(const Matrix& x) {
  float largest = 0;
  for (const float v : x.values) largest = std::max(largest, std::abs(v));
  Matrix out = x;
  const float up = Format::kLargest / largest;
  for (float& v : out.values)
    v = float(double(device::decode<Format>(device::encode<Format>(v * up))) * double(largest) /
              double(Format::kLargest));
  return out;
}

Matrix transposed(const Matrix& m) {
  Matrix t(m.cols, m.rows);
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) t.at(c, r) = m.at(r, c);
  return t;
}

// a b^T + bias, in double.
Matrix product(const Matrix& a, const Matrix& b, const Matrix* bias = nullptr) {
  Matrix c(a.rows, b.rows);
  for (int64_t m = 0; m < a.rows; ++m)
    for (int64_t n = 0; n < b.rows; ++n) {
      double sum = bias != nullptr ? double(bias->at(0, n)) : 0;
      for (int64_t k = 0; k < a.cols; ++k) sum += double(a.at(m, k)) * double(b.at(n, k));
      c.at(m, n) = float(sum);
    }
  return c;
}

struct Shape {
  int64_t M, N, K, gap;
  bool fits;  // fp8 at all
};

}  // namespace

TEST_CASE("every code of E4M3 and E5M2 means what the paper says; rounding is to nearest, ties to even") {
  check_format<E4M3>(0x7e);
  check_format<E5M2>(0x7b);
}

TEST_CASE("the scale brings the largest magnitude to the format's largest, and keeps what is not finite so") {
  for (const float largest : {1e-20f, 0.37f, 1.0f, 448.0f, 3e20f}) {
    const auto scale = device::fp8_scale<E4M3>(std::bit_cast<uint32_t>(largest));
    CHECK(device::encode<E4M3>(largest * scale.up) == 0x7e);
    CHECK(double(E4M3::kLargest * scale.down) == doctest::Approx(double(largest)).epsilon(1e-6));
  }
  const auto zero = device::fp8_scale<E5M2>(0);
  CHECK((std::isfinite(zero.up) && zero.down > 0));
  for (const float broken : {NAN, HUGE_VALF}) {
    const auto scale = device::fp8_scale<E4M3>(std::bit_cast<uint32_t>(broken));
    CHECK_FALSE(std::isfinite(device::decode<E4M3>(device::encode<E4M3>(broken * scale.up)) * scale.down));
    CHECK_FALSE(std::isfinite(device::decode<E4M3>(device::encode<E4M3>(1 * scale.up)) * scale.down));
  }
}

TEST_CASE(
    "products of fp8 are those of the rounded factors, and near those of the factors, on every device") {
  const PackedType type(DType::bf16, Packing::fp8);
  for (const Shape& s : {Shape{16, 32, 16, 0, true}, Shape{37, 64, 144, 8, true}, Shape{1, 16, 16, 0, true},
                         Shape{0, 16, 32, 0, true}, Shape{5, 80, 48, 3, false}, Shape{9, 24, 32, 0, false},
                         Shape{7, 33, 31, 0, false}, Shape{700, 16, 16, 0, true}}) {
    CAPTURE(s.M);
    CAPTURE(s.N);
    CAPTURE(s.K);
    const Matrix x = random_bf16(s.M, s.K, 1, 5), w = random_matrix(s.N, s.K, 2, 0.03f),
                 bias = random_bf16(1, s.N, 4, 0.1f), d = random_bf16(s.M, s.N, 3, 0.3f);
    Matrix w_bf16 = w;
    for (float& v : w_bf16.values) v = round_to_bf16(v);
    const Matrix codes_w = s.fits ? rounded<E4M3>(w) : w_bf16;
    const Matrix y = product(s.fits ? rounded<E4M3>(x) : x, codes_w, &bias),
                 dx = product(s.fits ? rounded<E5M2>(d) : d, transposed(codes_w));
    Results first;
    for (const auto& device : other_test_devices()) {
      if (!multiplies_fp8(*device)) continue;
      CAPTURE(device->name());
      Stream& stream = device->stream();
      const PlacedWeight packed(*device, w, type);
      const Placed in(*device, DType::bf16, x, s.gap), dy(*device, DType::bf16, d, s.gap),
          b(*device, DType::f32, bias), out(*device, DType::bf16, s.M, s.N, s.gap),
          din(*device, DType::bf16, s.M, s.K, s.gap), sum(*device, DType::f32, s.M, s.K, s.gap);
      stream.linear_forward(in.view(), packed.weight, b.view(), out.view());
      stream.linear_backward_input(dy.view(), packed.weight, din.view(), false);
      stream.linear_backward_input(dy.view(), packed.weight, sum.view(), false);
      const Matrix once = sum.values();
      stream.linear_backward_input(dy.view(), packed.weight, sum.view(), true);
      const Results results{out.values(), din.values(), once, sum.values()};
      CHECK(distance(results[0], y) < tolerance(DType::bf16));
      CHECK(distance(results[1], dx) < tolerance(DType::bf16));
      // Tensor cores keep fewer bits of a sum of fp8 than f32 has, on the way.
      const double exact = device->name().starts_with("emulated") ? 1e-5 : 2e-3;
      CHECK(distance(results[2], dx) < exact);
      Matrix twice = dx;
      for (float& v : twice.values) v *= 2;
      CHECK(distance(results[3], twice) < exact);
      // Of the factors before they were rounded: within what 4 and 3 bits of mantissa lose, and not closer
      // than they can be.
      if (s.M > 1) {
        const double forward = distance(results[0], product(x, w, &bias)),
                     backward = distance(results[2], product(d, transposed(w)));
        CHECK(forward < 0.1);
        CHECK(backward < 0.2);
        CHECK((forward > 0.01) == s.fits);
        CHECK((backward > 0.01) == s.fits);
      }
      if (device->name().starts_with("emulated") && !first.empty())
        for (size_t i = 0; i < results.size(); ++i) CHECK(same_bits(results[i], first[i]));
      if (first.empty()) first = results;
    }
  }
}

TEST_CASE("an activation in a product of fp8 is that of its result") {
  const Matrix x = random_bf16(20, 32, 1), w = random_bf16(48, 32, 2), d = random_bf16(20, 32, 3),
               bias = random_bf16(1, 48, 4);
  for (const auto& device : other_test_devices()) {
    if (!multiplies_fp8(*device)) continue;
    CAPTURE(device->name());
    Stream& stream = device->stream();
    const PackedType type(DType::bf16, Packing::fp8);
    const PlacedWeight inner(*device, w, type), outer(*device, transposed(w), type);
    const Placed in(*device, DType::bf16, x), b(*device, DType::f32, bias), dy(*device, DType::bf16, d),
        pre(*device, DType::bf16, 20, 48), y(*device, DType::bf16, 20, 48),
        dpre(*device, DType::bf16, 20, 48);
    stream.linear_activation_forward(in.view(), inner.weight, b.view(), {Activation::gelu, {}, pre.view()},
                                     y.view());
    stream.linear_activation_backward_input(dy.view(), outer.weight, {Activation::gelu, {}, pre.view()},
                                            dpre.view());
    Matrix expected = product(rounded<E4M3>(x), rounded<E4M3>(w), &bias),
           slope = product(rounded<E5M2>(d), rounded<E4M3>(w));
    CHECK(distance(pre.values(), expected) < tolerance(DType::bf16));
    const Matrix inputs = pre.values();
    for (size_t i = 0; i < slope.values.size(); ++i) {
      slope.values[i] *= device::gelu_slope(inputs.values[i]);
      expected.values[i] = device::gelu(expected.values[i]);
    }
    CHECK(distance(y.values(), expected) < 2 * tolerance(DType::bf16));
    CHECK(distance(dpre.values(), slope) < 2 * tolerance(DType::bf16));
  }
}

TEST_CASE("what is not finite stays so through a product of fp8, and zeros give the bias") {
  for (const auto& device : other_test_devices()) {
    if (!multiplies_fp8(*device)) continue;
    CAPTURE(device->name());
    const PlacedWeight weight(*device, random_bf16(16, 16, 2), {DType::bf16, Packing::fp8});
    const Matrix bias = random_bf16(1, 16, 3);
    const auto forward = [&](float value) {
      Matrix x(4, 16);
      x.at(2, 5) = value;
      const Placed in(*device, DType::bf16, x), b(*device, DType::f32, bias), y(*device, DType::bf16, 4, 16);
      device->stream().linear_forward(in.view(), weight.weight, b.view(), y.view());
      return y.values();
    };
    for (const float broken : {NAN, HUGE_VALF, -HUGE_VALF}) {
      const Matrix y = forward(broken);
      for (int64_t n = 0; n < 16; ++n) CHECK_FALSE(std::isfinite(y.at(2, n)));
    }
    const Matrix y = forward(0);
    for (int64_t m = 0; m < 4; ++m)
      for (int64_t n = 0; n < 16; ++n) CHECK(y.at(m, n) == bias.at(0, n));
  }
}

TEST_CASE("devices without fp8 refuse to pack for it, and say what to do") {
  const PackedType type(DType::bf16, Packing::fp8);
  const auto older = make_emulated_stream(ThreadOrder::forward, kEmulatedLimits, kEmulatedMemory, false);
  CHECK_THROWS_WITH_AS(older->packed_bytes(16, 16, type), doctest::Contains("compute capability 8.9"), Error);
  CHECK(older->packed_bytes(16, 16, DType::bf16) == 512);
  CpuStream cpu(best_isa_level());
  CHECK_THROWS_WITH_AS(cpu.packed_bytes(16, 16, type), doctest::Contains("set model.products = \"compute\""),
                       Error);
}
