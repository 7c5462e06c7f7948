#include "kernels/cpu/loops/embedding.hpp"

#include <algorithm>

#include "kernels/checks.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions,
                                  float scale, Dropout dropout, View out) {
  const int64_t cols = out.cols;
  check_embedding(ids, table, positions, out);
  const DropoutMask mask = mask_of(dropout);
  for (int64_t row = 0; row < out.rows; ++row) {
    const int32_t id = ids[size_t(row)];
    const float* position =
        positions.empty() ? nullptr : positions.as<float>() + row % positions.rows * positions.stride;
    loops_.embedding->forward(table.as<float>() + id * table.stride, position, cols, scale, &mask,
                              uint64_t(row * cols), out.as<float>() + row * out.stride);
  }
}

void CpuStream::embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale, Dropout dropout,
                                   ConstView dout, GradientSink& sink, int64_t offset, View dpositions) {
  const int64_t rows = dout.rows, cols = dout.cols;
  TROUPE_CHECK(rows == int64_t(ids.size()) && dout.dtype == DType::f32);
  const EmbeddingLoops& loops = *loops_.embedding;
  const DropoutMask mask = mask_of(dropout);
  const auto add_row = [&](int64_t row, float* sum) {
    loops.add(dout.as<float>() + row * dout.stride, cols, &mask, uint64_t(row * cols), sum);
  };
  if (!dpositions.empty()) {
    TROUPE_CHECK(dpositions.cols == cols && dpositions.rows > 0 && dpositions.dtype == DType::f32);
    fill_zero(dpositions);
    for (int64_t row = 0; row < rows; ++row)
      add_row(row, dpositions.as<float>() + row % dpositions.rows * dpositions.stride);
  }

  // Rows by id, and within an id by position.
  Scratch::Frame frame(scratch_);
  uint64_t* order = frame.take<uint64_t>(rows);
  float* sum = frame.take<float>(cols);
  int64_t count = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t id = ids[size_t(row)];
    TROUPE_CHECK(id >= 0, "token {}", id);
    if (id != pad_id) order[count++] = uint64_t(id) << 32 | uint64_t(row);
  }
  std::sort(order, order + count);
  for (int64_t i = 0; i < count;) {
    const int64_t id = int64_t(order[i] >> 32);
    std::fill_n(sum, cols, 0.0f);
    for (; i < count && int64_t(order[i] >> 32) == id; ++i) add_row(int64_t(order[i] & 0xffffffff), sum);
    loops.scale(sum, cols, scale);
    sink.fold(offset + id * cols, view_of(sum, 1, cols));
  }
}

}  // namespace troupe::kernels
