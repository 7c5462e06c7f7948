// A Stream that computes nothing: running a slot on it shows how much memory the slot takes, by the very code
// that will take it. With plan_arena it makes the dry run behind Model::arena_bytes.
#pragma once

#include "kernels/backend.hpp"

namespace troupe::model {

class PlanStream final : public kernels::Stream {
 public:
  using View = kernels::View;
  using ConstView = kernels::ConstView;

  kernels::Device device() const override { return {}; }
  void synchronize() override {}
  size_t packed_bytes(int64_t, int64_t, kernels::PackedType) const override { return 0; }
  kernels::PackedWeight pack(ConstView, kernels::PackedType, void*) override { return {}; }
  void linear_forward(ConstView, kernels::PackedWeight, ConstView, View) override {}
  void linear_backward_input(ConstView, kernels::PackedWeight, View, bool) override {}
  void linear_backward_weight(ConstView, ConstView, View, View) override {}
  void attention_forward(const kernels::AttentionShape&, ConstView, ConstView, ConstView, View,
                         View) override {}
  void attention_backward(const kernels::AttentionShape&, ConstView, ConstView, ConstView, ConstView,
                          ConstView, ConstView, View, View, View) override {}
  void residual_norm_forward(const kernels::ResidualNorm&) override {}
  void residual_norm_backward(const kernels::ResidualNormGrad&) override {}
  void rotate(View, ConstView, bool) override {}
  void activation_forward(kernels::Activation, ConstView, kernels::Dropout, View) override {}
  void activation_backward(kernels::Activation, ConstView, kernels::Dropout, ConstView, View) override {}
  void embedding_forward(std::span<const int32_t>, ConstView, ConstView, float, kernels::Dropout,
                         View) override {}
  void embedding_backward(std::span<const int32_t>, int32_t, float, kernels::Dropout, ConstView,
                          kernels::GradientSink&, int64_t, View) override {}
  kernels::LossSums cross_entropy(const kernels::CrossEntropy&) override { return {}; }
  void block_square_sums(const kernels::BlockLayout&, const kernels::RoundedTotal&, int64_t, int64_t,
                         double*) override {}
  void adamw(const kernels::AdamW&, const kernels::BlockLayout&, const kernels::RoundedTotal&, int64_t,
             int64_t, float*, float*, float*) override {}
  void log_softmax_topk(ConstView, int64_t, View, View) override {}
  void convert(ConstView, View) override {}
  void add(ConstView, View) override {}
  void fill_zero(View) override {}
};

class PlanSink final : public kernels::GradientSink {
 public:
  void fold(int64_t, kernels::ConstView) override {}
};

// Addresses that nobody reads or writes.
inline void* plan_address() {
  return reinterpret_cast<void*>(uintptr_t{1} << 20);
}
inline kernels::Arena plan_arena() {
  return kernels::Arena(
      kernels::Buffer(plan_address(), size_t{1} << 46, {}, [](void*, size_t, kernels::Device) {}));
}

}  // namespace troupe::model
