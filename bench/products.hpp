// What ceilings are made of: oneDNN's matrix products at their best, and how often T threads side by side get
// through a piece of work.
#pragma once

#include <cstdint>
#include <functional>

#include <oneapi/dnnl/dnnl.hpp>

namespace troupe::bench {

// Runs `pass` (which returns the units of work it did) on each thread for about `seconds`; returns units a
// second, of all threads.
double rate(int threads, double seconds, const std::function<std::function<double()>()>& make_pass);

struct ProductShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t batch = 1;                                       // independent products of this shape
  bool transposed_left = false, transposed_right = false;  // how the operands lie
  bool packed = false;  // the right one lies as oneDNN likes it best; not with a batch
  double flops() const { return 2.0 * double(m) * double(n) * double(k) * double(batch); }
};

// The three products of a linear layer of `rows` inputs, K to N channels: y = x W^T, dx = dy W, dW = dy^T x.
inline ProductShape forward(int64_t rows, int64_t n, int64_t k) {
  return {rows, n, k, 1, false, true, true};
}
inline ProductShape backward_input(int64_t rows, int64_t n, int64_t k) {
  return {rows, k, n, 1, false, false, true};
}
inline ProductShape backward_weight(int64_t rows, int64_t n, int64_t k) {
  return {n, k, rows, 1, true, false, false};
}

// oneDNN multiplies bf16 on processors with AVX-512 only; elsewhere bf16 is trained with f32's products.
bool multiplies_bf16();

// Reads 256 MiB; returns their bytes.
std::function<double()> reading_pass();

// Copies 128 MiB; returns the bytes that are read and written.
std::function<double()> copying_pass();

// (m, k) x (k, n) of operands full of ones. One thread at a time.
class Product {
 public:
  Product(const dnnl::engine& engine, const ProductShape& shape, dnnl::memory::data_type type,
          dnnl::memory::data_type result_type);
  void run(dnnl::stream& stream);
  double flops() const { return flops_; }

 private:
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul primitive_;
  dnnl::memory left_, right_, result_;
  double flops_;
};

}  // namespace troupe::bench
