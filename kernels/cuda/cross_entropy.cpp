// Two passes over blocks of the vocabulary, as on the CPU: the first finds each row's log-sum-exp; the second
// turns each block into dlogits and spends them at once on dx and dW, from the exponentials of the first pass
// where those were kept. Which blocks are kept depends on the shape and the stream's limits alone.
#include "kernels/cuda/device/cross_entropy.hpp"

#include <algorithm>

#include "kernels/checks.hpp"
#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kBlockColsMin = 128;

int64_t block_cols(int64_t rows, int64_t vocabulary, int64_t bytes) {
  const int64_t fitting = bytes / int64_t(sizeof(float)) / std::max<int64_t>(rows, 1) / 64 * 64;
  return std::min(std::max(fitting, kBlockColsMin), vocabulary);
}

}  // namespace

// The blocks of one call and its scratch.
struct CudaStream::VocabularyPasses {
  const CrossEntropy& args;
  int64_t M, C, V;
  int64_t cols_max, blocks, kept_blocks;  // the last kept_blocks of the blocks are kept
  const int32_t* targets = nullptr;       // on the device, as all below
  float* rows;                            // max, sum, total, target and log_sum: (5, M)
  float* logits;                          // (M, cols_max)
  char* kept;                             // kept_blocks of (M, cols_max) of the compute type
  float* shifts;                          // kept_blocks of (M)

  VocabularyPasses(const CrossEntropy& call, const CudaLimits& limits, Scratch::Frame& frame)
      : args(call),
        M(call.x.rows),
        C(call.x.cols),
        V(call.weight.n),
        cols_max(block_cols(M, V, limits.logit_bytes)),
        blocks((V + cols_max - 1) / cols_max) {
    const int64_t block_bytes = M * cols_max * int64_t(size_of(args.x.dtype));
    kept_blocks =
        backward() ? std::min(3 * blocks / 4, limits.kept_bytes / std::max<int64_t>(block_bytes, 1)) : 0;
    rows = frame.take<float>(5 * M);
    logits = frame.take<float>(M * cols_max);
    kept = frame.take<char>(kept_blocks * block_bytes);
    shifts = frame.take<float>(kept_blocks * M);
  }
  bool backward() const { return !args.dx.empty() || args.sink != nullptr; }
  int64_t cols(int64_t block) const { return std::min(cols_max, V - block * cols_max); }
  View logits_view(int64_t block) const { return view_of(logits, M, cols(block)); }
  ConstView weight(int64_t block) const {
    const ConstView all{args.weight.data, args.weight.dtype, V, C, C};
    return all.row_range(block * cols_max, cols(block));
  }
  device::LogitBlock logit_block(int64_t block) const {
    return {logits, M, cols(block), block * cols_max, targets};
  }
  device::SoftmaxRows state() const { return {rows, rows + M, rows + 2 * M, rows + 3 * M}; }
  float* log_sum() const { return rows + 4 * M; }
  // Null when the block is not kept.
  void* kept_block(int64_t block) const {
    const int64_t index = block - (blocks - kept_blocks);
    return index < 0 ? nullptr : kept + index * M * cols_max * int64_t(size_of(args.x.dtype));
  }
  float* shift(int64_t block) const {
    return shifts + std::max<int64_t>(block - (blocks - kept_blocks), 0) * M;
  }

  LossSums sum_losses(const float* host) const {  // host: a copy of `rows`
    const double smoothing = double(args.smoothing);
    LossSums sums;
    for (int64_t r = 0; r < M; ++r) {
      if (args.targets[r] < 0) continue;
      const double total = double(host[2 * M + r]), target = double(host[3 * M + r]);
      const double nll = double(host[4 * M + r]) - target;
      const double uniform = double(host[4 * M + r]) - total / double(V);
      sums.nll += nll;
      sums.loss += (1 - smoothing) * nll + smoothing * uniform;
      sums.tokens += 1;
      sums.correct += host[3 * M + r] >= host[r] ? 1 : 0;
    }
    return sums;
  }
};

void CudaStream::cross_entropy_forward(const VocabularyPasses& passes) {
  const device::StartSoftmaxRows start{passes.M, passes.state()};
  launch(start, device::ceil_div(passes.M, start.kThreads), "cross-entropy");
  with_compute_type(passes.args.x.dtype, [&](auto element) {
    using T = decltype(element);
    for (int64_t block = 0; block < passes.blocks; ++block) {
      multiply({passes.args.x}, {passes.weight(block), true}, passes.logits_view(block));
      device::AccumulateLogits<T> kernel;
      kernel.logits = passes.logit_block(block);
      kernel.state = passes.state();
      kernel.kept = static_cast<T*>(passes.kept_block(block));
      kernel.shift = passes.shift(block);
      launch(kernel, passes.M, "cross-entropy");
    }
  });
  const device::LogSums sums{passes.M, passes.state(), passes.log_sum()};
  launch(sums, device::ceil_div(passes.M, sums.kThreads), "cross-entropy");
}

// The second pass, last block first, as on the CPU.
void CudaStream::cross_entropy_backward(const VocabularyPasses& passes) {
  const CrossEntropy& args = passes.args;
  const int64_t M = passes.M, C = passes.C;
  Scratch::Frame frame(scratch_);
  const bool direct = args.dx.empty() || (args.dx.dtype == DType::f32 && args.dx.contiguous());
  const View dx = direct ? args.dx : view_of(frame.take<float>(M * C), M, C);
  void* made = frame.take<char>(M * passes.cols_max * int64_t(size_of(args.x.dtype)));
  float* dw = args.sink != nullptr ? frame.take<float>(passes.cols_max * C) : nullptr;
  for (int64_t block = passes.blocks - 1; block >= 0; --block) {
    const int64_t cols = passes.cols(block);
    void* kept = passes.kept_block(block);
    if (kept == nullptr) multiply({args.x}, {passes.weight(block), true}, passes.logits_view(block));
    const View dlogits{kept != nullptr ? kept : made, args.x.dtype, M, cols, cols};
    with_compute_type(args.x.dtype, [&](auto element) {
      using T = decltype(element);
      device::LogitGradient<T> kernel;
      kernel.logits = passes.logit_block(block);
      if (kept != nullptr) kernel.logits.logits = nullptr;
      kernel.shift = passes.shift(block);
      kernel.target = passes.state().target;
      kernel.log_sum = passes.log_sum();
      kernel.on = 1.0f - args.smoothing;
      kernel.off = args.smoothing / float(passes.V);
      kernel.dlogits = dlogits.as<T>();
      launch(kernel, M, "cross-entropy backward");
    });
    if (!dx.empty()) multiply({dlogits}, {passes.weight(block)}, dx, block + 1 < passes.blocks);
    if (dw == nullptr) continue;
    linear_backward_weight(dlogits, args.x, view_of(dw, cols, C), {});
    args.sink->fold(args.weight_offset + block * passes.cols_max * C, view_of(dw, cols, C));
  }
  if (!direct) convert(dx, args.dx);
}

LossSums CudaStream::cross_entropy(const CrossEntropy& args) {
  check_cross_entropy(args);
  Scratch::Frame frame(scratch_);
  VocabularyPasses passes(args, limits_, frame);
  passes.targets = place(std::span<const int32_t>(args.targets, size_t(passes.M)), frame);
  cross_entropy_forward(passes);
  std::vector<float> host(size_t(5 * passes.M));
  const bool any = passes.M > 0;
  if (any) runtime_->start_copy_out(passes.rows, host.size() * sizeof(float));
  if (passes.backward()) cross_entropy_backward(passes);
  if (any) runtime_->finish_copy_out(host.data());
  return passes.sum_losses(host.data());
}

}  // namespace troupe::kernels
