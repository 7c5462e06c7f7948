// The CPU's Stream: executes at once, on the thread that created it. Each group of operations is in the file
// of its name; their inner loops are compiled for every instruction-set level (loops/), and the stream holds
// the tables of its backend's level. Constructing it fixes its thread's floating-point state: round to
// nearest even, denormals are zero on input and output; and OpenMP to one thread, so that a oneDNN primitive
// runs on this thread alone.
#pragma once

#include <memory>

#include "kernels/backend.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/loops/loops.hpp"
#include "kernels/cpu/products.hpp"
#include "kernels/scratch.hpp"

namespace troupe::kernels {

// MXCSR: all exceptions masked, round to nearest even, flush to zero (bit 15), denormals are zero (bit 6).
inline constexpr unsigned kFloatState = 0x1f80 | 0x8000 | 0x0040;

struct ActivationLoops;
struct AttentionBackwardLoops;
struct AttentionLoops;
struct BlockCodecLoops;
struct ConvertLoops;
struct CrossEntropyLoops;
struct EmbeddingLoops;
struct ExactSumLoops;
struct InferenceLoops;
struct Int8Loops;
struct LinearLoops;
struct NormLoops;
struct OptimizerLoops;
struct PanelLoops;
struct RotaryLoops;
struct RowPanelLoops;

// The tables of one instruction-set level.
struct Loops {
  const ActivationLoops* activation = nullptr;
  const AttentionBackwardLoops* attention_backward = nullptr;
  const AttentionLoops* attention = nullptr;
  const BlockCodecLoops* block_codec = nullptr;
  const ConvertLoops* convert = nullptr;
  const CrossEntropyLoops* cross_entropy = nullptr;
  const EmbeddingLoops* embedding = nullptr;
  const ExactSumLoops* exact_sum = nullptr;
  const InferenceLoops* inference = nullptr;
  const Int8Loops* int8 = nullptr;
  const LinearLoops* linear = nullptr;
  const NormLoops* norm = nullptr;
  const OptimizerLoops* optimizer = nullptr;
  const PanelLoops* panels = nullptr;
  const RotaryLoops* rotary = nullptr;
  const RowPanelLoops* row_panels = nullptr;
};
Loops loops_of(IsaLevel level);

DropoutMask mask_of(const Dropout& dropout);  // CHECKs 0 <= rate < 1

// The least multiple of `to` that is not below n: as far as what lies in panels and blocks is padded.
constexpr int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// How much a stream keeps for a while to save work. The results' bits depend on it.
struct CpuLimits {
  int64_t kept_bytes = int64_t{128} << 20;  // cross_entropy: exponentials, from the first pass to the second
};

struct PanelWeight;

class CpuStream final : public Stream {
 public:
  explicit CpuStream(IsaLevel level, const CpuLimits& limits = {});
  ~CpuStream() override;

  Device device() const override { return {}; }
  void synchronize() override {}

  size_t packed_bytes(int64_t n, int64_t k, PackedType type) const override;
  PackedWeight pack(ConstView master, PackedType type, void* destination) override;
  void linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) override;
  void linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) override;
  void linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) override;

  void attention_forward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, View out,
                         View lse) override;
  void attention_backward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, ConstView out,
                          ConstView lse, ConstView dout, View dq, View dk, View dv) override;

  void residual_norm_forward(const ResidualNorm& args) override;
  void residual_norm_backward(const ResidualNormGrad& args) override;

  void rotate(View x, ConstView turns, bool inverse) override;

  void activation_forward(Activation kind, ConstView x, Dropout dropout, View y) override;
  void activation_backward(Activation kind, ConstView x, Dropout dropout, ConstView dy, View dx) override;

  void embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions, float scale,
                         Dropout dropout, View out) override;
  void embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale, Dropout dropout,
                          ConstView dout, GradientSink& sink, int64_t offset, View dpositions) override;

  LossSums cross_entropy(const CrossEntropy& args) override;

  void block_square_sums(const BlockLayout& layout, const RoundedTotal& total, int64_t begin, int64_t end,
                         double* sums) override;
  void adamw(const AdamW& args, const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
             int64_t end, float* weight, float* moment1, float* moment2) override;

  void log_softmax_topk(ConstView logits, int64_t k, View values, View ids) override;

  void convert(ConstView from, View to) override;
  void add(ConstView x, View y) override;
  void fill_zero(View y) override;

 private:
  ConstView packed_rows(PackedWeight weight) const;
  // c (M, N) = a b + bias, or += with `accumulate`; bf16 at every level.
  void multiply(Factor a, Factor b, const float* bias, View c, bool accumulate = false);
  // With channels [first, first + count) of a weight packed for training, `first` a multiple of 16:
  // y (M, count) = x W^T + bias, and dx (M, K) = dy W.
  struct Channels {
    int64_t first, count;
  };
  void forward_channels(ConstView x, PackedWeight weight, Channels channels, ConstView bias, View y);
  void backward_channels(ConstView dy, PackedWeight weight, Channels channels, View dx, bool accumulate);

  // int8.cpp: of weights packed as i8
  static size_t packed_bytes_int8(int64_t n, int64_t k);
  PackedWeight pack_int8(ConstView master, void* destination);
  void linear_forward_int8(ConstView x, PackedWeight weight, ConstView bias, View y);

  // panels.cpp: of others packed for inference
  static size_t packed_bytes_panels(int64_t n, int64_t k, DType dtype);
  PackedWeight pack_panels(ConstView master, DType dtype, void* destination);
  void linear_forward_panels(ConstView x, PackedWeight weight, ConstView bias, View y);
  // `held` is the type of the elements in the panels: that of x, or f32.
  void multiply_panels(ConstView x, const PanelWeight& weight, DType held, ConstView bias, View y,
                       bool accumulate);
  void multiply_rows(ConstView x, const PanelWeight& weight, DType held, ConstView bias, View y,
                     bool accumulate, int64_t depth);  // so much of the depth at once

  // training_panels.cpp: of weights packed for training, bf16 at level v4, all at v3
  bool trains_by_panels(DType dtype) const {
    return level_ == IsaLevel::v3 || (level_ == IsaLevel::v4 && dtype == DType::bf16);
  }
  size_t packed_bytes_training_panels(int64_t n, int64_t k) const;
  PackedWeight pack_training_panels(ConstView master, DType dtype, void* destination);
  void forward_panels(ConstView x, PackedWeight weight, Channels channels, ConstView bias, View y);
  void backward_panels(ConstView dy, PackedWeight weight, Channels channels, View dx, bool accumulate);
  void weight_gradient_panels(ConstView dy, ConstView x, View dw, View dbias);

  struct VocabularyPasses;
  void cross_entropy_backward(const VocabularyPasses& passes);

  IsaLevel level_;
  CpuLimits limits_;
  Loops loops_;
  Scratch scratch_;
  std::unique_ptr<Products> products_;
};

}  // namespace troupe::kernels
