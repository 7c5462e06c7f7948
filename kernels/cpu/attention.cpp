#include "kernels/cpu/loops/attention.hpp"

#include <cmath>

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kCausalQueryBlock = 24;  // smaller blocks reach less far past the diagonal
constexpr int64_t kPadding = 16;           // keys and channels lie in whole registers

AttentionWork take_work(Scratch::Frame& frame, const AttentionShape& shape, bool in_pairs, bool backward) {
  const int64_t keys = round_up(shape.keys, kPadding) * round_up(shape.head_size, kPadding);
  const int64_t queries = kAttentionQueries * round_up(shape.head_size, kPadding);
  const int64_t scores = kAttentionQueries * kAttentionStride;
  const int64_t words = shape.dropout.rate > 0 ? kAttentionQueries * (kAttentionKeys + 128) : 0;
  AttentionWork work{};
  work.out = frame.take<float>(queries);
  work.scores = frame.take<float>(scores);
  work.words = frame.take<uint32_t>(words);
  if (backward) {
    work.dscores = frame.take<float>(scores);
    work.dout = frame.take<float>(queries);
    work.dkeys = frame.take<float>(keys);
    work.dvalues = frame.take<float>(keys);
  }
  if (!in_pairs) {
    work.f32 = {frame.take<float>(keys), frame.take<float>(keys), frame.take<float>(keys),
                frame.take<float>(queries), backward ? frame.take<float>(keys) : nullptr};
    return work;
  }
  AttentionWork::Pairs& pairs = work.pairs;
  pairs.rows = frame.take<uint16_t>(keys);
  pairs.key_channels = frame.take<uint32_t>(keys / 2);
  pairs.row_pairs = frame.take<uint32_t>(keys / 2);
  pairs.queries = frame.take<uint16_t>(queries);
  pairs.weights = frame.take<uint16_t>(scores);
  if (!backward) return work;
  pairs.value_channels = frame.take<uint32_t>(keys / 2);
  pairs.dout = frame.take<uint16_t>(queries);
  pairs.dscores = frame.take<uint16_t>(scores);
  pairs.query_pairs = frame.take<uint32_t>(queries / 2);
  pairs.dout_pairs = frame.take<uint32_t>(queries / 2);
  pairs.weight_pairs = frame.take<uint32_t>(scores / 2);
  pairs.dscore_pairs = frame.take<uint32_t>(scores / 2);
  return work;
}

AttentionHead head_of(const AttentionShape& shape, int64_t b, int64_t h) {
  const int64_t length = shape.key_lengths != nullptr ? shape.key_lengths[b] : shape.keys;
  TROUPE_CHECK(length >= 0 && length <= shape.keys, "key length {} of {} in sequence {}", length, shape.keys,
               b);
  AttentionHead head{};
  head.queries = shape.queries;
  head.keys = shape.keys;
  head.size = shape.head_size;
  head.length = length;
  head.causal_offset = shape.causal ? shape.keys - shape.queries : shape.keys;
  head.query_block = shape.causal ? kCausalQueryBlock : kAttentionQueries;
  head.scale = float(1.0 / std::sqrt(double(shape.head_size)));  // IEEE 754 fixes every bit of a square root
  head.dropout = mask_of(shape.dropout);
  head.first_weight = uint64_t((b * shape.heads + h) * shape.queries) * uint64_t(shape.keys);
  return head;
}

// Where head h of sequence b starts in a matrix of (B * rows, H * D).
const void* head_start(ConstView view, int64_t rows, int64_t b, int64_t h, int64_t size) {
  return static_cast<const char*>(view.data) +
         size_t(b * rows * view.stride + h * size) * size_of(view.dtype);
}
HeadRows rows_of(ConstView view, int64_t rows, int64_t b, int64_t h, int64_t size) {
  return {head_start(view, rows, b, h, size), view.stride, size};
}
HeadRows keys_of(const AttentionShape& shape, ConstView view, int64_t b, int64_t h) {
  if (shape.keys_by_head)
    return {head_start(view, shape.keys, b * shape.heads + h, 0, 0), view.stride, shape.keys * view.stride};
  return rows_of(view, shape.keys, b, h, shape.head_size);
}
HeadRowsOut rows_out(View view, int64_t rows, int64_t b, int64_t h, int64_t size) {
  return {const_cast<void*>(head_start(view, rows, b, h, size)), view.stride};
}

void check_matrix(const AttentionShape& shape, ConstView view, int64_t rows, DType dtype) {
  TROUPE_CHECK(
      view.rows == shape.batch * rows && view.cols == shape.heads * shape.head_size && view.dtype == dtype,
      "({}, {}) {} for ({} x {}, {} x {}) {}", view.rows, view.cols, to_string(view.dtype), shape.batch, rows,
      shape.heads, shape.head_size, to_string(dtype));
}

void check_keys(const AttentionShape& shape, ConstView view, DType dtype) {
  if (!shape.keys_by_head) return check_matrix(shape, view, shape.keys, dtype);
  TROUPE_CHECK(view.rows == shape.batch * shape.heads * shape.keys && view.cols == shape.head_size &&
                   view.dtype == dtype,
               "({}, {}) {} for keys by head", view.rows, view.cols, to_string(view.dtype));
}

void check_inputs(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, ConstView lse) {
  TROUPE_CHECK(q.dtype == DType::f32 || q.dtype == DType::bf16, "attention of {}", to_string(q.dtype));
  check_matrix(shape, q, shape.queries, q.dtype);
  check_keys(shape, k, q.dtype);
  check_keys(shape, v, q.dtype);
  TROUPE_CHECK(lse.empty() || (lse.rows == shape.batch * shape.heads && lse.cols == shape.queries &&
                               lse.dtype == DType::f32));
}

}  // namespace

void CpuStream::attention_forward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v,
                                  View out, View lse) {
  check_inputs(shape, q, k, v, lse);
  check_matrix(shape, out, shape.queries, q.dtype);
  Scratch::Frame frame(scratch_);
  const bool bf16 = q.dtype == DType::bf16;
  const AttentionWork work = take_work(frame, shape, bf16 && loops_.attention->pairs, false);
  const auto run = bf16 ? loops_.attention->forward_bf16 : loops_.attention->forward_f32;
  const int64_t Tq = shape.queries, D = shape.head_size;
  for (int64_t b = 0; b < shape.batch; ++b)
    for (int64_t h = 0; h < shape.heads; ++h) {
      float* head_lse = lse.empty() ? nullptr : lse.as<float>() + (b * shape.heads + h) * lse.stride;
      run(head_of(shape, b, h),
          {rows_of(q, Tq, b, h, D), keys_of(shape, k, b, h), keys_of(shape, v, b, h),
           rows_out(out, Tq, b, h, D), head_lse},
          work);
    }
}

void CpuStream::attention_backward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v,
                                   ConstView out, ConstView lse, ConstView dout, View dq, View dk, View dv) {
  check_inputs(shape, q, k, v, lse);
  TROUPE_CHECK((!lse.empty() || shape.queries == 0) && !shape.keys_by_head);
  for (const ConstView& view : {out, dout, ConstView(dq)}) check_matrix(shape, view, shape.queries, q.dtype);
  for (const View& view : {dk, dv}) check_matrix(shape, view, shape.keys, q.dtype);
  Scratch::Frame frame(scratch_);
  const bool bf16 = q.dtype == DType::bf16;
  const AttentionWork work = take_work(frame, shape, bf16 && loops_.attention->pairs, true);
  const auto run = bf16 ? loops_.attention_backward->backward_bf16 : loops_.attention_backward->backward_f32;
  const int64_t Tq = shape.queries, Tk = shape.keys, D = shape.head_size;
  for (int64_t b = 0; b < shape.batch; ++b)
    for (int64_t h = 0; h < shape.heads; ++h)
      run(head_of(shape, b, h),
          {rows_of(q, Tq, b, h, D), rows_of(k, Tk, b, h, D), rows_of(v, Tk, b, h, D),
           rows_of(out, Tq, b, h, D), rows_of(dout, Tq, b, h, D),
           lse.as<float>() + (b * shape.heads + h) * lse.stride, rows_out(dq, Tq, b, h, D),
           rows_out(dk, Tk, b, h, D), rows_out(dv, Tk, b, h, D)},
          work);
}

}  // namespace troupe::kernels
