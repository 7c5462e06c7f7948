// Products with weights packed as plain rows are oneDNN's: those of f32 at level v4, and all at v2, which has
// no bf16: operands are rounded to bf16 all the same and widened to f32, whose products of bf16 are exact.
// The others have panels (training_panels.cpp).
#include "kernels/cpu/loops/linear.hpp"

#include "kernels/cpu/products.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

// How a packed weight lies in memory: (N, K) rows, widened below v4.
DType stored_type(IsaLevel level, DType dtype) {
  return level == IsaLevel::v4 ? dtype : DType::f32;
}

}  // namespace

ConstView CpuStream::packed_rows(PackedWeight weight) const {
  TROUPE_CHECK(weight.packing == Packing::training, "a weight packed for inference");
  return {weight.data, stored_type(level_, weight.dtype), weight.n, weight.k, weight.k};
}

void CpuStream::multiply(Factor a, Factor b, const float* bias, View c, bool accumulate) {
  Scratch::Frame frame(scratch_);
  const auto widen = [&](Factor factor) {
    if (level_ == IsaLevel::v4 || factor.matrix.dtype == DType::f32) return factor;
    const ConstView& m = factor.matrix;
    const View wide = view_of(frame.take<float>(m.size()), m.rows, m.cols);
    convert(m, wide);
    return Factor{wide, factor.transposed};
  };
  if (level_ == IsaLevel::v4 || c.dtype == DType::f32)
    return products_->multiply(widen(a), widen(b), bias, c, accumulate);
  const View wide = view_of(frame.take<float>(c.size()), c.rows, c.cols);
  if (accumulate) convert(c, wide);
  products_->multiply(widen(a), widen(b), bias, wide, accumulate);
  convert(wide, c);
}

size_t CpuStream::packed_bytes(int64_t n, int64_t k, PackedType type) const {
  if (type.packing == Packing::fp8)
    throw error(
        ErrorKind::device,
        "a CPU does not multiply in fp8 (model.products = \"fp8\"): train on a GPU of compute capability "
        "8.9 or later, or set model.products = \"compute\"");
  if (type.dtype == DType::i8) return packed_bytes_int8(n, k);
  if (type.packing == Packing::inference) return packed_bytes_panels(n, k, type.dtype);
  if (trains_by_panels(type.dtype)) return packed_bytes_training_panels(n, k);
  return (size_t(n) * size_t(k) * size_of(stored_type(level_, type.dtype)) + 63) / 64 * 64;
}

PackedWeight CpuStream::pack(ConstView master, PackedType type, void* destination) {
  TROUPE_CHECK(type.packing != Packing::fp8, "packed_bytes refuses fp8");
  const DType dtype = type.dtype;
  if (dtype == DType::i8) return pack_int8(master, destination);
  if (type.packing == Packing::inference) return pack_panels(master, dtype, destination);
  TROUPE_CHECK(master.dtype == DType::f32);
  if (trains_by_panels(dtype)) return pack_training_panels(master, dtype, destination);
  const PackedWeight weight{destination, master.rows, master.cols, dtype};
  const View rows{destination, stored_type(level_, dtype), master.rows, master.cols, master.cols};
  if (dtype == rows.dtype) {
    convert(master, rows);
    return weight;
  }
  Scratch::Frame frame(scratch_);
  const View rounded = view_of(frame.take<uint16_t>(master.size()), master.rows, master.cols);
  convert(master, rounded);
  convert(rounded, rows);
  return weight;
}

void CpuStream::linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) {
  TROUPE_CHECK(y.dtype == x.dtype || y.dtype == DType::f32);
  TROUPE_CHECK(bias.empty() || (bias.dtype == DType::f32 && bias.size() == weight.n));
  if (weight.dtype == DType::i8) return linear_forward_int8(x, weight, bias, y);
  if (weight.packing == Packing::inference) return linear_forward_panels(x, weight, bias, y);
  forward_channels(x, weight, {0, weight.n}, bias, y);
}

void CpuStream::forward_channels(ConstView x, PackedWeight weight, Channels channels, ConstView bias,
                                 View y) {
  TROUPE_CHECK(x.dtype == weight.dtype && weight.packing == Packing::training);
  TROUPE_CHECK(x.cols == weight.k && y.rows == x.rows && y.cols == channels.count,
               "({}, {}) x ({}, {}) -> ({}, {})", x.rows, x.cols, weight.k, channels.count, y.rows, y.cols);
  if (trains_by_panels(weight.dtype)) return forward_panels(x, weight, channels, bias, y);
  multiply({x}, transpose(packed_rows(weight).row_range(channels.first, channels.count)),
           bias.empty() ? nullptr : bias.as<float>(), y);
}

void CpuStream::linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) {
  TROUPE_CHECK(dy.dtype == weight.dtype && (dx.dtype == dy.dtype || dx.dtype == DType::f32));
  backward_channels(dy, weight, {0, weight.n}, dx, accumulate);
}

void CpuStream::backward_channels(ConstView dy, PackedWeight weight, Channels channels, View dx,
                                  bool accumulate) {
  TROUPE_CHECK(weight.packing == Packing::training);
  TROUPE_CHECK(dy.cols == channels.count && dx.rows == dy.rows && dx.cols == weight.k,
               "({}, {}) x ({}, {}) -> ({}, {})", dy.rows, dy.cols, channels.count, weight.k, dx.rows,
               dx.cols);
  if (trains_by_panels(weight.dtype)) return backward_panels(dy, weight, channels, dx, accumulate);
  multiply({dy}, {packed_rows(weight).row_range(channels.first, channels.count)}, nullptr, dx, accumulate);
}

void CpuStream::linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) {
  TROUPE_CHECK(dy.dtype == x.dtype && dy.rows == x.rows && dw.dtype == DType::f32);
  TROUPE_CHECK(dw.rows == dy.cols && dw.cols == x.cols);
  TROUPE_CHECK(dbias.empty() || (dbias.dtype == DType::f32 && dbias.size() == dy.cols));
  if (dy.rows > 0 && trains_by_panels(dy.dtype)) return weight_gradient_panels(dy, x, dw, dbias);
  if (dy.rows == 0)
    fill_zero(dw);
  else
    multiply(transpose(dy), {x}, nullptr, dw);
  if (dbias.empty()) return;
  if (dy.dtype == DType::f32)
    loops_.linear->column_sums_f32(dy.as<float>(), dy.rows, dy.cols, dy.stride, dbias.as<float>());
  else
    loops_.linear->column_sums_bf16(dy.as<uint16_t>(), dy.rows, dy.cols, dy.stride, dbias.as<float>());
}

}  // namespace troupe::kernels
