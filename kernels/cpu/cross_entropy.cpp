// Two passes over blocks of the vocabulary. The first finds each row's log-sum-exp; the second makes a
// block's logits anew (or takes them from the few that were kept), turns them into dlogits, and spends those
// at once on dx and dW.
#include "kernels/cpu/loops/cross_entropy.hpp"

#include <algorithm>
#include <limits>

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kBlockBytes = 2 << 20;  // logits of a block, f32
constexpr int64_t kBlockColsMin = 128, kBlockColsMax = 4096;

int64_t block_cols(int64_t rows, int64_t vocabulary) {
  const int64_t fitting = kBlockBytes / int64_t(sizeof(float)) / std::max<int64_t>(rows, 1) / 64 * 64;
  return std::min(std::clamp(fitting, kBlockColsMin, kBlockColsMax), vocabulary);
}

LossSums sum_losses(const CrossEntropy& args, const SoftmaxRows& state, const float* log_sum) {
  const double smoothing = double(args.smoothing), classes = double(args.weight.n);
  LossSums sums;
  for (int64_t r = 0; r < args.x.rows; ++r) {
    if (args.targets[r] < 0) continue;
    const double nll = double(log_sum[r]) - double(state.target[r]);
    const double uniform = double(log_sum[r]) - double(state.total[r]) / classes;
    sums.nll += nll;
    sums.loss += (1 - smoothing) * nll + smoothing * uniform;
    sums.tokens += 1;
    sums.correct += state.target[r] >= state.max[r] ? 1 : 0;
  }
  return sums;
}

void check(const CrossEntropy& args) {
  TROUPE_CHECK(args.x.dtype == args.weight.dtype && args.x.cols == args.weight.k);
  TROUPE_CHECK(args.smoothing >= 0 && args.smoothing < 1, "smoothing {}", args.smoothing);
  TROUPE_CHECK(args.dx.empty() ||
               (args.dx.dtype == args.x.dtype && args.dx.rows == args.x.rows && args.dx.cols == args.x.cols));
  for (int64_t r = 0; r < args.x.rows; ++r)
    TROUPE_CHECK(args.targets[r] < args.weight.n, "target {} of row {} in a vocabulary of {}",
                 args.targets[r], r, args.weight.n);
}

}  // namespace

// The second pass: dx and the blocks of dW.
void CpuStream::cross_entropy_backward(const CrossEntropy& args, int64_t cols_max, const float* log_sum,
                                       float* logits) {
  const int64_t M = args.x.rows, C = args.x.cols, V = args.weight.n;
  const DType dtype = args.x.dtype;
  Scratch::Frame frame(scratch_);
  const bool direct = args.dx.empty() || (dtype == DType::f32 && args.dx.contiguous());
  const View dx = direct ? args.dx : view_of(frame.take<float>(M * C), M, C);
  void* dlogits = frame.take<char>(M * cols_max * int64_t(size_of(dtype)));
  float* dw = args.sink != nullptr ? frame.take<float>(cols_max * C) : nullptr;
  const SmoothedTarget smoothed{1.0f - args.smoothing, args.smoothing / float(V)};
  for (int64_t first = 0; first < V; first += cols_max) {
    const int64_t cols = std::min(cols_max, V - first);
    const ConstView weight = packed_rows(args.weight).row_range(first, cols);
    multiply({args.x}, transpose(weight), nullptr, view_of(logits, M, cols));
    const LogitBlock block{logits, M, cols, first, args.targets};
    const View d{dlogits, dtype, M, cols, cols};
    if (dtype == DType::f32)
      loops_.cross_entropy->gradient_f32(block, log_sum, smoothed, d.as<float>());
    else
      loops_.cross_entropy->gradient_bf16(block, log_sum, smoothed, d.as<uint16_t>());
    if (!dx.empty()) multiply({d}, {weight}, nullptr, dx, first > 0);
    if (dw == nullptr) continue;
    linear_backward_weight(d, args.x, view_of(dw, cols, C), {});
    args.sink->fold(args.weight_offset + first * C, view_of(dw, cols, C));
  }
  if (!direct) convert(dx, args.dx);
}

LossSums CpuStream::cross_entropy(const CrossEntropy& args) {
  check(args);
  const int64_t M = args.x.rows, V = args.weight.n;
  const int64_t cols_max = block_cols(M, V);
  Scratch::Frame frame(scratch_);
  float* logits = frame.take<float>(M * cols_max);
  float* log_sum = frame.take<float>(M);
  const SoftmaxRows state{frame.take<float>(M), frame.take<float>(M), frame.take<float>(M),
                          frame.take<float>(M)};
  std::fill_n(state.max, M, -std::numeric_limits<float>::infinity());
  for (float* zeroed : {state.sum, state.total, state.target}) std::fill_n(zeroed, M, 0.0f);
  for (int64_t first = 0; first < V; first += cols_max) {
    const int64_t cols = std::min(cols_max, V - first);
    multiply({args.x}, transpose(packed_rows(args.weight).row_range(first, cols)), nullptr,
             view_of(logits, M, cols));
    loops_.cross_entropy->accumulate({logits, M, cols, first, args.targets}, state);
  }
  loops_.cross_entropy->log_sums(state, M, log_sum);
  if (!args.dx.empty() || args.sink != nullptr) cross_entropy_backward(args, cols_max, log_sum, logits);
  return sum_losses(args, state, log_sum);
}

}  // namespace troupe::kernels
