// Two passes over blocks of the vocabulary. The first finds each row's log-sum-exp. The second turns each
// block into dlogits and spends them at once on dx and dW: from the exponentials of the first pass where
// those were kept (a bounded buffer holds the last blocks), else from logits made anew. Which is which
// depends on the shape and the stream's limits alone.
#include "kernels/cpu/loops/cross_entropy.hpp"

#include <algorithm>
#include <limits>

#include "kernels/checks.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kBlockBytes = 2 << 20;  // logits of a block, f32
constexpr int64_t kBlockColsMin = 128, kBlockColsMax = 4096;

int64_t block_cols(int64_t rows, int64_t vocabulary) {
  const int64_t fitting = kBlockBytes / int64_t(sizeof(float)) / std::max<int64_t>(rows, 1) / 64 * 64;
  return std::min(std::clamp(fitting, kBlockColsMin, kBlockColsMax), vocabulary);
}

}  // namespace

// The blocks of one call and its scratch.
struct CpuStream::VocabularyPasses {
  const CrossEntropy& args;
  const CrossEntropyLoops& loops;
  int64_t M, C, V;
  int64_t cols_max, blocks, kept_blocks;  // the last kept_blocks of the blocks are kept
  SoftmaxRows state;
  float* log_sum;
  float* logits;  // (M, cols_max)
  char* kept;     // kept_blocks of (M, cols_max) of the compute type
  float* shifts;  // kept_blocks of (M)

  VocabularyPasses(const CrossEntropy& call, const CrossEntropyLoops& table, const CpuLimits& limits,
                   Scratch::Frame& frame)
      : args(call),
        loops(table),
        M(call.x.rows),
        C(call.x.cols),
        V(call.weight.n),
        cols_max(block_cols(M, V)),
        blocks((V + cols_max - 1) / cols_max) {
    const int64_t block_bytes = M * cols_max * int64_t(size_of(args.x.dtype));
    kept_blocks = backward() ? std::min(blocks, limits.kept_bytes / std::max<int64_t>(block_bytes, 1)) : 0;
    state = {frame.take<float>(M), frame.take<float>(M), frame.take<float>(M), frame.take<float>(M)};
    std::fill_n(state.max, M, -std::numeric_limits<float>::infinity());
    for (float* zeroed : {state.sum, state.total, state.target}) std::fill_n(zeroed, M, 0.0f);
    log_sum = frame.take<float>(M);
    logits = frame.take<float>(M * cols_max);
    kept = frame.take<char>(kept_blocks * block_bytes);
    shifts = frame.take<float>(kept_blocks * M);
  }
  bool backward() const { return !args.dx.empty() || args.sink != nullptr; }
  bool bf16() const { return args.x.dtype == DType::bf16; }
  int64_t cols(int64_t block) const { return std::min(cols_max, V - block * cols_max); }
  LogitBlock logit_block(int64_t block) const {
    return {logits, M, cols(block), block * cols_max, args.targets};
  }
  View logits_view(int64_t block) const { return view_of(logits, M, cols(block)); }
  KeptExponentials kept_block(int64_t block) const {
    const int64_t index = block - (blocks - kept_blocks);
    if (index < 0) return {nullptr, nullptr};
    return {kept + index * M * cols_max * int64_t(size_of(args.x.dtype)), shifts + index * M};
  }

  void accumulate(int64_t block) const {
    (bf16() ? loops.accumulate_bf16 : loops.accumulate_f32)(logit_block(block), state, kept_block(block));
  }
  // dlogits (M, cols) of a block whose logits are in `logits`, into `made`.
  View gradient(int64_t block, const SmoothedTarget& smoothed, void* made) const {
    (bf16() ? loops.gradient_bf16 : loops.gradient_f32)(logit_block(block), log_sum, smoothed, made);
    return {made, args.x.dtype, M, cols(block), cols(block)};
  }
  View kept_gradient(int64_t block, const SmoothedTarget& smoothed) const {
    const KeptExponentials exponentials = kept_block(block);
    (bf16() ? loops.kept_gradient_bf16 : loops.kept_gradient_f32)(logit_block(block), log_sum, smoothed,
                                                                  state.target, exponentials);
    return {exponentials.values, args.x.dtype, M, cols(block), cols(block)};
  }
  LossSums sum_losses() const {
    const double smoothing = double(args.smoothing);
    LossSums sums;
    for (int64_t r = 0; r < M; ++r) {
      if (args.targets[r] < 0) continue;
      const double nll = double(log_sum[r]) - double(state.target[r]);
      const double uniform = double(log_sum[r]) - double(state.total[r]) / double(V);
      sums.nll += nll;
      sums.loss += (1 - smoothing) * nll + smoothing * uniform;
      sums.tokens += 1;
      sums.correct += state.target[r] >= state.max[r] ? 1 : 0;
    }
    return sums;
  }
};

// The second pass, last block first: those are kept and the warmest.
void CpuStream::cross_entropy_backward(const VocabularyPasses& passes) {
  const CrossEntropy& args = passes.args;
  const int64_t M = passes.M, C = passes.C;
  Scratch::Frame frame(scratch_);
  const bool direct = args.dx.empty() || (args.dx.dtype == DType::f32 && args.dx.contiguous());
  const View dx = direct ? args.dx : view_of(frame.take<float>(M * C), M, C);
  const bool all_kept = passes.kept_blocks == passes.blocks;
  void* made = frame.take<char>(all_kept ? 0 : M * passes.cols_max * int64_t(size_of(args.x.dtype)));
  float* dw = args.sink != nullptr ? frame.take<float>(passes.cols_max * C) : nullptr;
  const SmoothedTarget smoothed{1.0f - args.smoothing, args.smoothing / float(passes.V)};
  for (int64_t block = passes.blocks - 1; block >= 0; --block) {
    const int64_t first = block * passes.cols_max, cols = passes.cols(block);
    const bool kept = passes.kept_block(block).values != nullptr;
    if (!kept) forward_channels(args.x, args.weight, {first, cols}, {}, passes.logits_view(block));
    const View dlogits =
        kept ? passes.kept_gradient(block, smoothed) : passes.gradient(block, smoothed, made);
    if (!dx.empty()) backward_channels(dlogits, args.weight, {first, cols}, dx, block + 1 < passes.blocks);
    if (dw == nullptr) continue;
    linear_backward_weight(dlogits, args.x, view_of(dw, cols, C), {});
    args.sink->fold(args.weight_offset + first * C, view_of(dw, cols, C));
  }
  if (!direct) convert(dx, args.dx);
}

LossSums CpuStream::cross_entropy(const CrossEntropy& args) {
  check_cross_entropy(args);
  Scratch::Frame frame(scratch_);
  const VocabularyPasses passes(args, *loops_.cross_entropy, limits_, frame);
  for (int64_t block = 0; block < passes.blocks; ++block) {
    forward_channels(args.x, args.weight, {block * passes.cols_max, passes.cols(block)}, {},
                     passes.logits_view(block));
    passes.accumulate(block);
  }
  loops_.cross_entropy->log_sums(passes.state, passes.M, passes.log_sum);
  if (passes.backward()) cross_entropy_backward(passes);
  return passes.sum_losses();
}

}  // namespace troupe::kernels
