#include "kernels/cuda/device/embedding.hpp"

#include <algorithm>

#include "kernels/checks.hpp"
#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

void CudaStream::embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions,
                                   float scale, Dropout dropout, View out) {
  const int64_t cols = out.cols;
  check_embedding(ids, table, positions, out);
  const device::DropoutRule rule = rule_of(dropout);
  Scratch::Frame frame(scratch_);
  const int32_t* placed = place(ids, frame);
  with_width(all_take_vectors(table, positions, out), [&](auto width) {
    device::EmbeddingForward<width()> kernel;
    kernel.shape = {out.rows, cols};
    kernel.rule = rule;
    kernel.ids = placed;
    kernel.table = rows_of<float>(table);
    kernel.positions = rows_of<float>(positions);
    kernel.length = std::max<int64_t>(positions.rows, 1);
    kernel.scale = scale;
    kernel.out = rows_of<float>(out);
    launch(kernel, kernel.blocks(kernel.shape), "embedding");
  });
}

void CudaStream::segment_sums(const Segments& segments, float scale, const Dropout& dropout, ConstView dout,
                              View out) {
  Scratch::Frame frame(scratch_);
  const int32_t* rows = place(std::span<const int32_t>(segments.rows), frame);
  const int32_t* starts = place(std::span<const int32_t>(segments.starts), frame);
  with_width(all_take_vectors(dout, out), [&](auto width) {
    device::SegmentSums<width()> kernel;
    kernel.cols = out.cols;
    kernel.rule = rule_of(dropout);
    kernel.scale = scale;
    kernel.rows = rows;
    kernel.starts = starts;
    kernel.dout = rows_of<float>(dout);
    kernel.out = rows_of<float>(out);
    launch(kernel, kernel.blocks(out.rows, out.cols), "embedding backward");
  });
}

void CudaStream::embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale,
                                    Dropout dropout, ConstView dout, GradientSink& sink, int64_t offset,
                                    View dpositions) {
  const int64_t rows = dout.rows, cols = dout.cols;
  TROUPE_CHECK(rows == int64_t(ids.size()) && dout.dtype == DType::f32);
  if (!dpositions.empty()) {
    TROUPE_CHECK(dpositions.cols == cols && dpositions.rows > 0 && dpositions.dtype == DType::f32);
    Segments positions;
    for (int64_t position = 0; position < dpositions.rows; ++position) {
      for (int64_t row = position; row < rows; row += dpositions.rows) positions.rows.push_back(int32_t(row));
      positions.starts.push_back(int32_t(positions.rows.size()));
    }
    segment_sums(positions, 1.0f, dropout, dout, dpositions);
  }

  // Rows by id, and within an id by position.
  std::vector<uint64_t> order;
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t id = ids[size_t(row)];
    TROUPE_CHECK(id >= 0, "token {}", id);
    if (id != pad_id) order.push_back(uint64_t(id) << 32 | uint64_t(row));
  }
  if (order.empty()) return;
  std::sort(order.begin(), order.end());
  Segments tokens;
  for (const uint64_t entry : order) {
    const auto id = int32_t(entry >> 32);
    if (tokens.ids.empty() || tokens.ids.back() != id) {
      tokens.ids.push_back(id);
      tokens.starts.push_back(0);
    }
    tokens.rows.push_back(int32_t(entry & 0xffffffff));
    tokens.starts.back() = int32_t(tokens.rows.size());
  }
  Scratch::Frame frame(scratch_);
  const int64_t count = int64_t(tokens.ids.size());
  const View sums = view_of(frame.take<float>(count * cols), count, cols);
  segment_sums(tokens, scale, dropout, dout, sums);
  sink.fold_rows(offset, tokens.ids, sums);
}

}  // namespace troupe::kernels
