// Matrix products by oneDNN, one thread each. Keeps dnnl.hpp out of every other file.
#pragma once

#include <memory>
#include <string>

#include "kernels/cpu/backend.hpp"
#include "kernels/scratch.hpp"

namespace troupe::kernels {

// Holds oneDNN to `level` for the whole process. oneDNN fixes its level at first use, so all backends of a
// process share one: throws Error(device) when it is already fixed at another.
void limit_onednn(IsaLevel level);
std::string onednn_version();  // "2.6.3"

// A factor of a product as it lies in memory, or its transpose.
struct Factor {
  ConstView matrix;
  bool transposed = false;

  int64_t rows() const { return transposed ? matrix.cols : matrix.rows; }
  int64_t cols() const { return transposed ? matrix.rows : matrix.cols; }
};
inline Factor transpose(ConstView matrix) {
  return {matrix, true};
}

// The products of one stream. Keeps the primitives it made, by shape (a call costs 0.3 us more than the
// product, making one 0.2 ms); when kPrimitivesMax are held it forgets them all. Not thread-safe.
class Products {
 public:
  static constexpr size_t kPrimitivesMax = 4096;

  explicit Products(Scratch& scratch);
  ~Products();

  // c (M, N) = a (M, K) b (K, N) + bias, or += with `accumulate`. a and b are both f32 or both bf16 and c is
  // f32 or bf16; bias is (N) f32 or null. Sums in f32. Throws Error(device) when oneDNN refuses.
  void multiply(Factor a, Factor b, const float* bias, View c, bool accumulate = false);

 private:
  struct Cache;
  Scratch& scratch_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace troupe::kernels
