#include <algorithm>
#include <cmath>

#include "kernels/cuda/device/attention_backward.hpp"
#include "kernels/cuda/device/attention_mma_backward.hpp"
#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kHeadSizeMax = 256;

// f(constant) with the smallest kSize that holds a head.
template <typename F>
void with_head_size(int64_t size, F&& f) {
  if (size <= 64)
    f(std::integral_constant<int, 64>{});
  else if (size <= 128)
    f(std::integral_constant<int, 128>{});
  else
    f(std::integral_constant<int, 256>{});
}

// f(constant) likewise, for tensor cores.
template <typename F>
void with_mma_size(int64_t size, F&& f) {
  if (size <= 64)
    f(std::integral_constant<int, 64>{});
  else
    f(std::integral_constant<int, 128>{});
}

// Whether tensor cores take it: a matter of shape, type and alignment alone.
template <typename... Views>
bool takes_mma(const AttentionShape& shape, ConstView q, const Views&... views) {
  return q.dtype == DType::bf16 && shape.head_size % 16 == 0 && shape.head_size <= 128 &&
         all_take_vectors(q, views...);
}

// Whether cuDNN may be asked for it: a matter of shape, type and alignment, and of which keys are padding.
// Its dropout masks come from a generator of its own, where ours are functions of a weight's place; its
// causal mask begins at the first key; and it is asked for whole blocks of queries and keys alone, where it
// is at its best and has the fewest forms.
bool may_be_fused(const AttentionShape& shape, const CudaStream::AttentionViews& v) {
  constexpr int64_t kBlock = 128;
  const auto is_whole = [&](int32_t length) { return length == shape.keys; };
  return v.q.dtype == DType::bf16 && shape.dropout.rate == 0 && !shape.keys_by_head &&
         (!shape.causal || shape.queries == shape.keys) && shape.head_size % 8 == 0 &&
         shape.head_size <= 128 && shape.batch > 0 && shape.queries > 0 && shape.queries % kBlock == 0 &&
         shape.keys > 0 && shape.keys % kBlock == 0 &&
         all_take_vectors(v.q, v.k, v.v, v.out, v.dout, v.dq, v.dk, v.dv) &&
         (shape.key_lengths == nullptr ||
          std::all_of(shape.key_lengths, shape.key_lengths + shape.batch, is_whole));
}

FusedAttention::Rows fused_rows(ConstView view) {
  return {const_cast<void*>(view.data), view.stride};
}

FusedAttention fused(const AttentionShape& shape, const CudaStream::AttentionViews& views,
                     const CudaLimits& limits) {
  FusedAttention a;
  a.batch = shape.batch;
  a.queries = shape.queries;
  a.keys = shape.keys;
  a.heads = shape.heads;
  a.head_size = shape.head_size;
  a.causal = shape.causal;
  a.is_gradient = views.dout.data != nullptr;
  a.q = fused_rows(views.q);
  a.k = fused_rows(views.k);
  a.v = fused_rows(views.v);
  a.out = fused_rows(views.out);
  a.lse = views.lse.empty() ? nullptr : const_cast<float*>(views.lse.as<float>());
  a.dout = fused_rows(views.dout);
  a.dq = fused_rows(views.dq);
  a.dk = fused_rows(views.dk);
  a.dv = fused_rows(views.dv);
  a.workspace_max = size_t(limits.attention_bytes);
  return a;
}

// `count` sequences of `whole` from `first` on.
FusedAttention part_of(const FusedAttention& whole, int64_t first, int64_t count) {
  FusedAttention part = whole;
  part.batch = count;
  const auto advance = [&](FusedAttention::Rows& rows, int64_t from_sequence) {
    if (rows.data != nullptr)
      rows.data = static_cast<uint16_t*>(rows.data) + first * from_sequence * rows.stride;
  };
  for (FusedAttention::Rows* rows : {&part.q, &part.out, &part.dout, &part.dq}) advance(*rows, whole.queries);
  for (FusedAttention::Rows* rows : {&part.k, &part.v, &part.dk, &part.dv}) advance(*rows, whole.keys);
  if (part.lse != nullptr) part.lse += first * whole.heads * whole.queries;
  return part;
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
  TROUPE_CHECK(shape.head_size >= 1 && shape.head_size <= kHeadSizeMax, "heads of {} channels",
               shape.head_size);
  check_matrix(shape, q, shape.queries, q.dtype);
  check_keys(shape, k, q.dtype);
  check_keys(shape, v, q.dtype);
  TROUPE_CHECK(lse.empty() || (lse.rows == shape.batch * shape.heads && lse.cols == shape.queries &&
                               lse.dtype == DType::f32 && lse.contiguous()));
  for (int64_t b = 0; shape.key_lengths != nullptr && b < shape.batch; ++b)
    TROUPE_CHECK(shape.key_lengths[b] >= 0 && shape.key_lengths[b] <= shape.keys,
                 "key length {} of {} in sequence {}", shape.key_lengths[b], shape.keys, b);
}

}  // namespace

struct CudaStream::AttentionTask {
  const AttentionShape& shape;
  device::Heads heads;
};

device::Heads CudaStream::place(const AttentionShape& shape, Scratch::Frame& frame) {
  device::Heads heads;
  heads.batch = shape.batch;
  heads.queries = shape.queries;
  heads.keys = shape.keys;
  heads.keys_by_head = shape.keys_by_head;
  heads.heads = shape.heads;
  heads.size = int(shape.head_size);
  heads.causal_offset = shape.causal ? shape.keys - shape.queries : shape.keys;
  if (shape.key_lengths != nullptr)
    heads.lengths = place(std::span<const int32_t>(shape.key_lengths, size_t(shape.batch)), frame);
  heads.scale = float(1.0 / std::sqrt(double(shape.head_size)));
  heads.rule = rule_of(shape.dropout);
  return heads;
}

int64_t CudaStream::fused_at_once(const AttentionShape& shape, const AttentionViews& views) {
  if (!may_be_fused(shape, views)) return 0;
  const FusedAttention whole = fused(shape, views, limits_);
  const auto fits = [&](int64_t count) {
    return runtime_->attention_workspace(part_of(whole, 0, count)).has_value();
  };
  // For each head the backward pass keeps a matrix in bf16 and a column in f32, and little else.
  const int64_t kept = whole.is_gradient ? whole.heads * whole.queries * (2 * whole.keys + 4) : 1;
  int64_t at_once = std::min(whole.batch, limits_.attention_bytes / kept);
  while (at_once > 0 && !fits(at_once)) at_once /= 2;
  if (at_once > 0 && whole.batch % at_once != 0 && !fits(whole.batch % at_once)) return 0;
  return at_once;
}

bool CudaStream::attend_fused(const AttentionShape& shape, const AttentionViews& views) {
  const int64_t at_once = fused_at_once(shape, views);
  if (at_once == 0) return false;
  Scratch::Frame sums(scratch_);
  FusedAttention whole = fused(shape, views, limits_);
  if (whole.lse == nullptr) whole.lse = sums.take<float>(whole.batch * whole.heads * whole.queries);
  for (int64_t first = 0; first < whole.batch; first += at_once) {
    FusedAttention part = part_of(whole, first, std::min(at_once, whole.batch - first));
    Scratch::Frame frame(scratch_);
    part.workspace = frame.take<char>(int64_t(*runtime_->attention_workspace(part)));
    runtime_->attend(part);
  }
  return true;
}

void CudaStream::attention_forward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v,
                                   View out, View lse) {
  check_inputs(shape, q, k, v, lse);
  check_matrix(shape, out, shape.queries, q.dtype);
  if (out.size() == 0 || attend_fused(shape, {q, k, v, out, lse, {}, {}, {}, {}})) return;
  Scratch::Frame frame(scratch_);
  const device::Heads heads = place(shape, frame);
  if (takes_mma(shape, q, k, v, out)) {
    with_mma_size(shape.head_size, [&](auto size) {
      device::AttentionForwardMma<size()> kernel;
      kernel.heads = heads;
      kernel.q = rows_of<uint16_t>(q);
      kernel.k = rows_of<uint16_t>(k);
      kernel.v = rows_of<uint16_t>(v);
      kernel.out = rows_of<uint16_t>(out);
      kernel.lse = lse.empty() ? nullptr : lse.as<float>();
      launch(kernel, kernel.blocks(heads), "attention");
    });
    return;
  }
  with_compute_type(q.dtype, [&](auto element) {
    with_head_size(shape.head_size, [&](auto size) {
      using T = decltype(element);
      device::AttentionForward<T, size()> kernel;
      kernel.heads = heads;
      kernel.q = rows_of<T>(q);
      kernel.k = rows_of<T>(k);
      kernel.v = rows_of<T>(v);
      kernel.out = rows_of<T>(out);
      kernel.lse = lse.empty() ? nullptr : lse.as<float>();
      launch(kernel, shape.batch * shape.heads * kernel.tiles(shape.queries), "attention");
    });
  });
}

// delta, then dq, then dk and dv: by tensor cores where they take the shape.
template <typename T>
void CudaStream::attention_gradients(const AttentionTask& task, const AttentionViews& views) {
  const AttentionShape& shape = task.shape;
  const int64_t head_count = shape.batch * shape.heads;
  Scratch::Frame frame(scratch_);
  device::AttentionDelta<T> delta;
  delta.heads = task.heads;
  delta.out = rows_of<T>(views.out);
  delta.dout = rows_of<T>(views.dout);
  delta.delta = frame.take<float>(head_count * shape.queries);
  launch(delta, delta.blocks(shape.batch, shape.heads, shape.queries), "attention backward");
  const float* lse = views.lse.empty() ? nullptr : views.lse.as<float>();
  if constexpr (sizeof(T) == 2) {
    if (takes_mma(shape, views.q, views.k, views.v, views.dout, views.dq, views.dk, views.dv)) {
      const device::AttentionGradientsMma all{task.heads,          rows_of<T>(views.q), rows_of<T>(views.k),
                                              rows_of<T>(views.v), delta.dout,          lse,
                                              delta.delta};
      with_mma_size(shape.head_size, [&](auto size) {
        const device::AttentionQueryGradientMma<size()> queries{all, rows_of<T>(views.dq)};
        launch(queries, queries.blocks(task.heads), "attention backward");
        const device::AttentionKeyGradientMma<size()> keys{all, rows_of<T>(views.dk), rows_of<T>(views.dv)};
        launch(keys, keys.blocks(task.heads), "attention backward");
      });
      return;
    }
  }
  const device::AttentionGradients<T> all{task.heads,          rows_of<T>(views.q), rows_of<T>(views.k),
                                          rows_of<T>(views.v), delta.dout,          lse,
                                          delta.delta};
  with_head_size(shape.head_size, [&](auto size) {
    const device::AttentionQueryGradient<T, size()> queries{all, rows_of<T>(views.dq)};
    launch(queries, head_count * device::ceil_div(shape.queries, device::kAttentionTile),
           "attention backward");
    const device::AttentionKeyGradient<T, size()> keys{all, rows_of<T>(views.dk), rows_of<T>(views.dv)};
    launch(keys, head_count * device::ceil_div(shape.keys, device::kAttentionTile), "attention backward");
  });
}

void CudaStream::attention_backward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v,
                                    ConstView out, ConstView lse, ConstView dout, View dq, View dk, View dv) {
  check_inputs(shape, q, k, v, lse);
  for (const ConstView view : {out, dout, ConstView(dq)}) check_matrix(shape, view, shape.queries, q.dtype);
  for (const ConstView view : {ConstView(dk), ConstView(dv)}) check_matrix(shape, view, shape.keys, q.dtype);
  TROUPE_CHECK(!lse.empty() || shape.queries == 0, "the backward pass needs lse");
  const AttentionViews views{q, k, v, out, lse, dout, dq, dk, dv};
  if (attend_fused(shape, views)) return;
  Scratch::Frame frame(scratch_);
  const AttentionTask task{shape, place(shape, frame)};
  with_compute_type(q.dtype, [&](auto element) { attention_gradients<decltype(element)>(task, views); });
}

}  // namespace troupe::kernels
