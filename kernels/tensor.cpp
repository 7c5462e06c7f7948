#include "kernels/tensor.hpp"

namespace troupe::kernels {

namespace {
constexpr size_t kAlignment = 64;
constexpr size_t round_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
// As many as Arena::take would give in `bytes`.
size_t rows_in(size_t bytes, DType dtype, int64_t cols) {
  return bytes / kAlignment * kAlignment / (size_t(cols) * size_of(dtype));
}
}  // namespace

std::string_view to_string(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i8: return "i8";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::e4m3: return "e4m3";
    case DType::e5m2: return "e5m2";
  }
  return "unknown";
}

View Arena::take(DType dtype, int64_t rows, int64_t cols) {
  TROUPE_CHECK(rows >= 0 && cols >= 0);
  const size_t bytes = round_up(size_t(rows) * size_t(cols) * size_of(dtype));
  if (used_ + bytes > buffer_.bytes())
    throw error(ErrorKind::out_of_memory,
                "activations: {} rows of {} {} take {} bytes, but {} of {} are taken; {} rows would fit", rows, cols,
                to_string(dtype), bytes, used_, buffer_.bytes(), rows_in(buffer_.bytes() - used_, dtype, cols));
  View view{static_cast<char*>(buffer_.data()) + used_, dtype, rows, cols, cols};
  used_ += bytes;
  if (used_ > peak_) peak_ = used_;
  return view;
}

}  // namespace troupe::kernels
