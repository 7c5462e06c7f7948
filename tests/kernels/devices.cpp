#include "tests/kernels/devices.hpp"

#include <cstdlib>

#if defined(TROUPE_CUDA)
#include "kernels/cuda/backend.hpp"
#endif

namespace troupe::testing {

using namespace kernels;

namespace {

class CpuDevice final : public TestDevice {
 public:
  std::string name() const override { return "CPU"; }
  Stream& stream() override { return stream_; }
  Buffer allocate(size_t bytes) override { return allocate_host(bytes); }
  void copy_in(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  CpuStream stream_{best_isa_level()};
};

class StreamDevice final : public TestDevice {
 public:
  StreamDevice(std::string name, std::unique_ptr<CudaStream> stream)
      : name_(std::move(name)), stream_(std::move(stream)) {}
  std::string name() const override { return name_; }
  Stream& stream() override { return *stream_; }
  CudaStream* cuda() override { return stream_.get(); }
  Buffer allocate(size_t bytes) override { return stream_->runtime().allocate(bytes); }
  void copy_in(void* to, const void* from, size_t bytes) override {
    stream_->runtime().copy_in(to, from, bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    stream_->runtime().copy_out(to, from, bytes);
  }

 private:
  std::string name_;
  std::unique_ptr<CudaStream> stream_;
};

}  // namespace

std::unique_ptr<TestDevice> cpu_test_device() {
  return std::make_unique<CpuDevice>();
}

std::unique_ptr<TestDevice> emulated_test_device(const CudaLimits& limits) {
  return std::make_unique<StreamDevice>("emulated", make_emulated_stream(ThreadOrder::forward, limits));
}

std::unique_ptr<TestDevice> gpu_test_device() {
#if defined(TROUPE_CUDA)
  if (cuda_device_count() > 0) return std::make_unique<StreamDevice>("GPU", make_cuda_stream(0));
#endif
  return nullptr;
}

std::vector<std::unique_ptr<TestDevice>>& other_test_devices() {
  // Never ended: libraries that a GPU's stream has loaded are gone before this would be.
  static auto& devices = *[] {
    auto* all = new std::vector<std::unique_ptr<TestDevice>>;
    const auto add = [&](const char* name, ThreadOrder order) {
      all->push_back(std::make_unique<StreamDevice>(name, make_emulated_stream(order)));
    };
    if (std::getenv("TROUPE_TEST_GPU_ONLY") == nullptr) {
      add("emulated, forward", ThreadOrder::forward);
      add("emulated, backward", ThreadOrder::backward);
      add("emulated, mixed", ThreadOrder::mixed);
    }
    if (auto gpu = gpu_test_device()) all->push_back(std::move(gpu));
    return all;
  }();
  return devices;
}

}  // namespace troupe::testing
