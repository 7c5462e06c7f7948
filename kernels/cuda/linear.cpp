// Weights are packed as plain rows. A row-major matrix is its own transpose column-major, so c = a b is asked
// for as c^T = b^T a^T.
#include "kernels/cuda/column_sums.hpp"

namespace troupe::kernels {

namespace {

ConstView rows_of_packed(PackedWeight weight) {
  return {weight.data, weight.dtype, weight.n, weight.k, weight.k};
}

}  // namespace

void CudaStream::multiply(RowMajor a, RowMajor b, ConstView bias, View c, bool accumulate) {
  const auto rows = [](const RowMajor& f) { return f.transposed ? f.matrix.cols : f.matrix.rows; };
  const auto cols = [](const RowMajor& f) { return f.transposed ? f.matrix.rows : f.matrix.cols; };
  TROUPE_CHECK(rows(a) == c.rows && cols(b) == c.cols && cols(a) == rows(b) && cols(a) > 0,
               "({}, {}) x ({}, {}) -> ({}, {})", rows(a), cols(a), rows(b), cols(b), c.rows, c.cols);
  TROUPE_CHECK(a.matrix.dtype == b.matrix.dtype);
  if (c.size() == 0) return;
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
  product.accumulate = accumulate;
  Scratch::Frame frame(scratch_);
  if (!bias.empty()) {  // in the result's type, at an address that any algorithm takes
    const View copy{frame.take<float>(bias.size()), c.dtype, 1, bias.size(), bias.size()};
    convert({bias.data, DType::f32, 1, bias.size(), bias.size()}, copy);
    product.bias = copy.data;
  }
  runtime_->multiply(product);
}

size_t CudaStream::packed_bytes(int64_t n, int64_t k, PackedType type) const {
  return (size_t(n) * size_t(k) * size_of(type.dtype) + 255) / 256 * 256;
}

PackedWeight CudaStream::pack(ConstView master, PackedType type, void* destination) {
  TROUPE_CHECK(master.dtype == DType::f32);
  convert(master, {destination, type.dtype, master.rows, master.cols, master.cols});
  return {destination, master.rows, master.cols, type.dtype};
}

void CudaStream::linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) {
  TROUPE_CHECK(x.dtype == weight.dtype && (y.dtype == x.dtype || y.dtype == DType::f32));
  TROUPE_CHECK(bias.empty() || (bias.dtype == DType::f32 && bias.size() == weight.n));
  multiply({x}, {rows_of_packed(weight), true}, bias, y);
}

void CudaStream::linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) {
  TROUPE_CHECK(dy.dtype == weight.dtype && (dx.dtype == dy.dtype || dx.dtype == DType::f32));
  multiply({dy}, {rows_of_packed(weight)}, {}, dx, accumulate);
}

void CudaStream::linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) {
  TROUPE_CHECK(dy.dtype == x.dtype && dy.rows == x.rows && dw.dtype == DType::f32);
  if (dy.rows == 0)
    fill_zero(dw);
  else
    multiply({dy, true}, {x}, {}, dw);
  if (dbias.empty()) return;
  TROUPE_CHECK(dbias.dtype == DType::f32 && dbias.size() == dy.cols);
  with_compute_type(dy.dtype, [&](auto element) {
    using T = decltype(element);
    column_sums(device::PlainColumns<T>{rows_of<T>(dy)}, dy.rows, dy.cols, takes_vectors(dy), dbias, {});
  });
}

}  // namespace troupe::kernels
