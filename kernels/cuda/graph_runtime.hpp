// A DeviceRuntime that launches gathered calls as graphs: between begin_gathering and end_gathering it keeps
// kernels, products, attention, zeroings and copies in a CallSequence, which graph_cache.hpp makes when the
// host is about to wait or to copy from the device, at a mark, when a limit is reached and at the end. They
// are the same calls with the same arguments in the same order, so the bits are the same. What fails is
// thrown by the call that made the sequence run, and the rest of it is dropped. When memory is allocated
// (temporary memory grows, and moves when it is free again) what was gathered runs first, and the rest of the
// gathering at once. One thread at a time.
#pragma once

#include "kernels/cuda/graph_cache.hpp"

namespace troupe::kernels {

class GraphRuntime final : public DeviceRuntime {
 public:
  // `graphs` makes graphs of calls that `direct` would make.
  GraphRuntime(std::unique_ptr<DeviceRuntime> direct, std::unique_ptr<GraphDevice> graphs,
               const GraphLimits& limits = {})
      : limits_(limits),
        direct_(std::move(direct)),
        graphs_(std::move(graphs)),
        cache_(*direct_, *graphs_, limits) {}

  Device device() const override { return direct_->device(); }
  DeviceMemory memory() const override { return direct_->memory(); }
  void synchronize() override;
  void* native() const override { return direct_->native(); }

  Buffer allocate(size_t bytes) override;
  void copy_in(void* to, const void* from, size_t bytes) override;
  void copy_out(void* to, const void* from, size_t bytes) override;
  void start_copy_out(const void* from, size_t bytes) override;
  void finish_copy_out(void* to) override;
  void copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                 size_t rows) override;
  void zero_rows(void* to, size_t stride, size_t bytes, size_t rows) override;
  void set_mark(size_t mark) override;  // ends a graph
  void wait_for_mark(size_t mark) override;
  void launch(const KernelCall& call) override;
  void multiply(const Product& product) override;
  bool has_algorithm(const Product& product) override { return direct_->has_algorithm(product); }
  std::optional<size_t> attention_workspace(const FusedAttention& attention) override {
    return direct_->attention_workspace(attention);
  }
  void attend(const FusedAttention& attention) override;

  void begin_gathering() override;
  void end_gathering() override;
  void drop_gathered() noexcept override;

  const GraphCache& cache() const { return cache_; }

 private:
  void run_gathered();
  void run_at_limit();

  GraphLimits limits_;
  std::unique_ptr<DeviceRuntime> direct_;
  std::unique_ptr<GraphDevice> graphs_;
  GraphCache cache_;
  CallSequence calls_;  // gathered; empty when not gathering
  bool gathering_ = false;
};

}  // namespace troupe::kernels
