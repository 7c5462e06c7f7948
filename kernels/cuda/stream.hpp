// The Stream of CUDA devices. Each group of operations is in the file of its name; their kernels are in
// device/. ids, targets, key lengths, block layouts and rounded totals are host memory, as on the CPU, and
// are copied before a call returns; everything else is memory of the device. Calls return before their work
// is done, but for cross_entropy, block_square_sums and those that say so. One thread at a time.
//
// Beside the interface: bf16 products round their bias to bf16; heads have at most 256 channels; f32 products
// are true f32 until set_tf32.
#pragma once

#include <memory>

#include "kernels/backend.hpp"
#include "kernels/cuda/device/attention_parts.hpp"
#include "kernels/cuda/device/exact_sum.hpp"
#include "kernels/cuda/runtime.hpp"
#include "kernels/scratch.hpp"

namespace troupe::kernels {

// How much cross_entropy and attention keep at once. The results' bits depend on these.
struct CudaLimits {
  int64_t logit_bytes = int64_t{128} << 20;  // of a block of logits, f32
  int64_t kept_bytes = int64_t{1} << 30;     // of exponentials kept from the first pass to the second
  // Of the (queries, keys) matrices of cuDNN's backward pass, which takes as many sequences at a time as have
  // room; 0: attention is by our own kernels, forward too.
  int64_t attention_bytes = int64_t{1} << 28;
};

namespace device {
struct Magnitudes;
}

device::DropoutRule rule_of(const Dropout& dropout);  // CHECKs 0 <= rate < 1
std::vector<device::LayoutSegment> segments_of(const BlockLayout& layout);

class DeviceTotal;  // accumulator.hpp

// The flat f32 arrays of the optimizer's state, on the device.
struct StateArrays {
  float* weight = nullptr;
  float* moment1 = nullptr;
  float* moment2 = nullptr;
};

class CudaStream final : public Stream {
 public:
  explicit CudaStream(std::unique_ptr<DeviceRuntime> runtime, const CudaLimits& limits = {});

  Device device() const override { return runtime_->device(); }
  void synchronize() override { runtime_->synchronize(); }
  DeviceRuntime& runtime() { return *runtime_; }
  Scratch& scratch() { return scratch_; }
  // From now on products of f32 are made in TF32: on tensor cores, from 10 bits of each factor's mantissa.
  void set_tf32(bool on) { tf32_ = on; }

  // The bytes of a packed weight that have a meaning; packed_bytes leaves room behind them.
  static size_t packed_size(const PackedWeight& weight);
  size_t packed_bytes(int64_t n, int64_t k, PackedType type) const override;
  PackedWeight pack(ConstView master, PackedType type, void* destination) override;
  void linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) override;
  void linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) override;
  void linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) override;
  void linear_activation_forward(ConstView x, PackedWeight weight, ConstView bias,
                                 const FusedActivation& activation, View y) override;
  void linear_activation_backward_input(ConstView dy, PackedWeight weight, const FusedActivation& activation,
                                        View dpre) override;

  void attention_forward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, View out,
                         View lse) override;
  void attention_backward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, ConstView out,
                          ConstView lse, ConstView dout, View dq, View dk, View dv) override;
  // What an attention reads and writes; the forward pass has no gradients, and may have no lse.
  struct AttentionViews {
    ConstView q, k, v, out, lse, dout;
    View dq, dk, dv;
  };
  // How many sequences at a time the two calls above give to the device's fused attention; 0: they take our
  // own kernels.
  int64_t fused_at_once(const AttentionShape& shape, const AttentionViews& views);

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

  // The same for a total that is on the device already: all its blocks, and blocks [begin, end). `sums` is
  // host memory.
  void block_square_sums(const DeviceTotal& total, double* sums);
  void adamw(const AdamW& args, const DeviceTotal& total, int64_t begin, int64_t end,
             const StateArrays& state);

 private:
  struct PlacedTotal;
  // Copies on the device, until the frame ends.
  device::LayoutTable place(const BlockLayout& layout, Scratch::Frame& frame);
  device::Heads place(const AttentionShape& shape, Scratch::Frame& frame);
  PlacedTotal place(const BlockLayout& layout, const RoundedTotal& total, int64_t begin, int64_t end,
                    Scratch::Frame& frame);
  struct AttentionTask;
  // Some sequences at a time; false: nothing is done, as fused_at_once has it.
  bool attend_fused(const AttentionShape& shape, const AttentionViews& views);
  template <typename T>
  void attention_gradients(const AttentionTask& task, const AttentionViews& views);
  void square_sums(const PlacedTotal& total, int64_t begin, int64_t end, double* sums);
  void update(const AdamW& args, const PlacedTotal& total, int64_t begin, int64_t end,
              const StateArrays& state);
  template <typename T>
  const T* place(std::span<const T> values, Scratch::Frame& frame) {
    T* copy = frame.take<T>(int64_t(values.size()));
    if (!values.empty()) runtime_->copy_in(copy, values.data(), values.size_bytes());
    return copy;
  }
  template <typename Kernel>
  void launch(const Kernel& kernel, int64_t blocks, const char* name) {
    if (blocks > 0) runtime_->launch(call_of(kernel, blocks, name));
  }
  // Column sums (cols) of the source's values; `second` may be empty.
  template <typename Source>
  void column_sums(const Source& source, int64_t rows, int64_t cols, bool vectors, View first, View second);
  // c (M, N) = a b [+ c], row-major; `transposed` says which factors lie as their transpose.
  struct RowMajor {
    ConstView matrix;
    bool transposed = false;
  };
  Product product_of(RowMajor a, RowMajor b, View c) const;
  void multiply(RowMajor a, RowMajor b, View c, bool accumulate = false);
  const void* place_bias(ConstView bias, DType dtype, Scratch::Frame& frame);
  static bool fuses(const FusedActivation& activation, View result);
  // `x` is the other factor beside the weight; false: the device has no algorithm for it.
  bool multiply_fused(const Product& product, ConstView x, const PackedWeight& weight, bool is_gradient);

  static bool has_fp8(const PackedWeight& weight);
  void require_fp8() const;
  void pack_fp8(ConstView master, const PackedWeight& weight);
  // The product of x and a weight in bf16, made in fp8 instead; false: the device has no algorithm for it.
  // `is_gradient`: x is one, and is multiplied by the weight instead of its transpose.
  bool multiply_fp8(Product product, ConstView x, const PackedWeight& weight, bool is_gradient);
  template <typename Format>
  void quantise(ConstView x, uint8_t* codes, float* scale);
  template <typename T>
  device::Magnitudes magnitudes_of(ConstView x, float* down, Scratch::Frame& frame);

  struct VocabularyPasses;
  void cross_entropy_forward(const VocabularyPasses& passes);
  void cross_entropy_backward(const VocabularyPasses& passes);
  // Rows of dout to add up for each row of out: `rows` from starts[s] to starts[s + 1].
  struct Segments {
    std::vector<int32_t> rows, starts{0}, ids;
  };
  void segment_sums(const Segments& segments, float scale, const Dropout& dropout, ConstView dout, View out);

  std::unique_ptr<DeviceRuntime> runtime_;
  CudaLimits limits_;
  bool tf32_ = false;
  Scratch scratch_;
};

}  // namespace troupe::kernels
