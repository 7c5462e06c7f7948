// A DeviceRuntime that makes another's calls and measures how long they let the host wait for the device.
#pragma once

#include <chrono>

#include "kernels/cuda/runtime.hpp"

namespace troupe::bench {

class WaitMeter final : public kernels::DeviceRuntime {
 public:
  explicit WaitMeter(std::unique_ptr<kernels::DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}
  // Milliseconds since the last call.
  double take_waited_ms() { return std::exchange(waited_ms_, 0); }

  kernels::Device device() const override { return runtime_->device(); }
  kernels::DeviceMemory memory() const override { return runtime_->memory(); }
  void* native() const override { return runtime_->native(); }
  kernels::Buffer allocate(size_t bytes) override { return runtime_->allocate(bytes); }
  void synchronize() override {
    wait([&] { runtime_->synchronize(); });
  }
  void copy_in(void* to, const void* from, size_t bytes) override { runtime_->copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) override {
    wait([&] { runtime_->copy_out(to, from, bytes); });
  }
  void start_copy_out(const void* from, size_t bytes) override { runtime_->start_copy_out(from, bytes); }
  void finish_copy_out(void* to) override {
    wait([&] { runtime_->finish_copy_out(to); });
  }
  void copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                 size_t rows) override {
    runtime_->copy_rows(to, to_stride, from, from_stride, bytes, rows);
  }
  void zero_rows(void* to, size_t stride, size_t bytes, size_t rows) override {
    runtime_->zero_rows(to, stride, bytes, rows);
  }
  void set_mark(size_t mark) override { runtime_->set_mark(mark); }
  void wait_for_mark(size_t mark) override {
    wait([&] { runtime_->wait_for_mark(mark); });
  }
  void launch(const kernels::KernelCall& call) override { runtime_->launch(call); }
  void multiply(const kernels::Product& product) override { runtime_->multiply(product); }
  bool has_algorithm(const kernels::Product& product) override { return runtime_->has_algorithm(product); }
  std::optional<size_t> attention_workspace(const kernels::FusedAttention& attention) override {
    return runtime_->attention_workspace(attention);
  }
  void attend(const kernels::FusedAttention& attention) override { runtime_->attend(attention); }

 private:
  template <typename Call>
  void wait(Call&& call) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    waited_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }

  std::unique_ptr<kernels::DeviceRuntime> runtime_;
  double waited_ms_ = 0;
};

}  // namespace troupe::bench
