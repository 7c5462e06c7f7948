// Weights are packed as plain rows (and see fp8.cpp). A row-major matrix is its own transpose column-major,
// so c = a b is asked for as c^T = b^T a^T.
#include "kernels/cuda/column_sums.hpp"

namespace troupe::kernels {

namespace {

ConstView rows_of_packed(PackedWeight weight) {
  return {weight.data, weight.dtype, weight.n, weight.k, weight.k};
}

}  // namespace

Product CudaStream::product_of(RowMajor a, RowMajor b, View c) const {
  const auto rows = [](const RowMajor& f) { return f.transposed ? f.matrix.cols : f.matrix.rows; };
  const auto cols = [](const RowMajor& f) { return f.transposed ? f.matrix.rows : f.matrix.cols; };
  TROUPE_CHECK(rows(a) == c.rows && cols(b) == c.cols && cols(a) == rows(b) && cols(a) > 0,
               "({}, {}) x ({}, {}) -> ({}, {})", rows(a), cols(a), rows(b), cols(b), c.rows, c.cols);
  TROUPE_CHECK(a.matrix.dtype == b.matrix.dtype);
  const auto factor = [](const RowMajor& f) {
    return Product::Factor{f.matrix.data,   f.matrix.cols, f.matrix.rows,
                           f.matrix.stride, f.transposed,  f.matrix.dtype};
  };
  Product product;
  product.m = c.cols;
  product.n = c.rows;
  product.k = cols(a);
  product.a = factor(b);
  product.b = factor(a);
  product.d = c.data;
  product.leading = c.stride;
  product.dtype = c.dtype;
  product.tf32 = tf32_ && a.matrix.dtype == DType::f32;
  return product;
}

void CudaStream::multiply(RowMajor a, RowMajor b, View c, bool accumulate) {
  Product product = product_of(a, b, c);
  product.accumulate = accumulate;
  if (c.size() > 0) runtime_->multiply(product);
}

// In the result's type, at an address that any algorithm takes.
const void* CudaStream::place_bias(ConstView bias, DType dtype, Scratch::Frame& frame) {
  if (bias.empty()) return nullptr;
  const View copy{frame.take<float>(bias.size()), dtype, 1, bias.size(), bias.size()};
  convert({bias.data, DType::f32, 1, bias.size(), bias.size()}, copy);
  return copy.data;
}

size_t CudaStream::packed_size(const PackedWeight& weight) {
  const size_t count = size_t(weight.n) * size_t(weight.k);
  return count * size_of(weight.dtype) + (has_fp8(weight) ? 2 * count + sizeof(float) : 0);
}

size_t CudaStream::packed_bytes(int64_t n, int64_t k, PackedType type) const {
  if (type.packing == Packing::fp8) require_fp8();
  return (packed_size({nullptr, n, k, type.dtype, type.packing}) + 255) / 256 * 256;
}

PackedWeight CudaStream::pack(ConstView master, PackedType type, void* destination) {
  TROUPE_CHECK(master.dtype == DType::f32);
  TROUPE_CHECK(type.packing != Packing::fp8 || type.dtype == DType::bf16, "fp8 stands in for bf16 alone");
  convert(master, {destination, type.dtype, master.rows, master.cols, master.cols});
  const Packing packing = type.packing == Packing::fp8 ? Packing::fp8 : Packing::training;
  const PackedWeight weight{destination, master.rows, master.cols, type.dtype, packing};
  if (has_fp8(weight)) pack_fp8(master, weight);
  // Checksums read whole words, which must be the same on every device.
  const size_t bytes = packed_size(weight), rest = (4 - bytes % 4) % 4;
  if (rest > 0) runtime_->zero_rows(static_cast<char*>(destination) + bytes, rest, rest, 1);
  return weight;
}

void CudaStream::linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) {
  TROUPE_CHECK(x.dtype == weight.dtype && (y.dtype == x.dtype || y.dtype == DType::f32));
  TROUPE_CHECK(bias.empty() || (bias.dtype == DType::f32 && bias.size() == weight.n));
  Product product = product_of({x}, {rows_of_packed(weight), true}, y);
  if (y.size() == 0) return;
  Scratch::Frame frame(scratch_);
  product.bias = place_bias(bias, y.dtype, frame);
  if (!has_fp8(weight) || !multiply_fp8(product, x, weight, false)) runtime_->multiply(product);
}

void CudaStream::linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) {
  TROUPE_CHECK(dy.dtype == weight.dtype && (dx.dtype == dy.dtype || dx.dtype == DType::f32));
  Product product = product_of({dy}, {rows_of_packed(weight)}, dx);
  product.accumulate = accumulate;
  if (dx.size() == 0) return;
  if (!has_fp8(weight) || !multiply_fp8(product, dy, weight, true)) runtime_->multiply(product);
}

void CudaStream::linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) {
  TROUPE_CHECK(dy.dtype == x.dtype && dy.rows == x.rows && dw.dtype == DType::f32);
  TROUPE_CHECK(dbias.empty() || (dbias.dtype == DType::f32 && dbias.size() == dy.cols));
  if (dy.rows == 0) {
    fill_zero(dw);
    if (!dbias.empty()) fill_zero(dbias);
    return;
  }
  Product product = product_of({dy, true}, {x}, dw);
  product.column_sums = dbias.empty() ? nullptr : dbias.as<float>();
  if (dbias.empty() || runtime_->has_algorithm(product)) return runtime_->multiply(product);
  product.column_sums = nullptr;
  runtime_->multiply(product);
  with_compute_type(dy.dtype, [&](auto element) {
    using T = decltype(element);
    column_sums(device::PlainColumns<T>{rows_of<T>(dy)}, dy.rows, dy.cols, takes_vectors(dy), dbias, {});
  });
}

// Whether a product may do the activation's work, where the device has an algorithm for that.
bool CudaStream::fuses(const FusedActivation& activation, View result) {
  check_same_shape(activation.pre, result);
  TROUPE_CHECK(activation.pre.dtype == result.dtype);
  return activation.kind == Activation::gelu && activation.dropout.rate == 0 && result.size() > 0;
}

bool CudaStream::multiply_fused(const Product& product, ConstView x, const PackedWeight& weight,
                                bool is_gradient) {
  if (has_fp8(weight)) return multiply_fp8(product, x, weight, is_gradient);
  if (!runtime_->has_algorithm(product)) return false;
  runtime_->multiply(product);
  return true;
}

void CudaStream::linear_activation_forward(ConstView x, PackedWeight weight, ConstView bias,
                                           const FusedActivation& activation, View y) {
  if (fuses(activation, y)) {
    Scratch::Frame frame(scratch_);
    Product product = product_of({x}, {rows_of_packed(weight), true}, y);
    product.bias = place_bias(bias, y.dtype, frame);
    product.epilogue = Epilogue::gelu;
    product.pre = activation.pre.data;
    product.pre_leading = activation.pre.stride;
    if (multiply_fused(product, x, weight, false)) return;
  }
  Stream::linear_activation_forward(x, weight, bias, activation, y);
}

void CudaStream::linear_activation_backward_input(ConstView dy, PackedWeight weight,
                                                  const FusedActivation& activation, View dpre) {
  if (fuses(activation, dpre)) {
    Product product = product_of({dy}, {rows_of_packed(weight)}, dpre);
    product.epilogue = Epilogue::gelu_gradient;
    product.pre = activation.pre.data;
    product.pre_leading = activation.pre.stride;
    if (multiply_fused(product, dy, weight, true)) return;
  }
  Stream::linear_activation_backward_input(dy, weight, activation, dpre);
}

}  // namespace troupe::kernels
