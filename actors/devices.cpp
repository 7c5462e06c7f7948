#include "actors/devices.hpp"

#include "actors/device_engine.hpp"
#include "kernels/cuda/emulated.hpp"
#if defined(TROUPE_CUDA)
#include "kernels/cuda/backend.hpp"
#endif
#if defined(TROUPE_NCCL)
#include "comm/nccl_group.hpp"
#endif

namespace troupe::actors {

namespace {

using config::DeviceKind;

#if defined(TROUPE_CUDA)

void require_gpu(const config::Device& device) {
  const int count = kernels::cuda_device_count();
  if (count == 0)
    throw error(ErrorKind::device,
                "cannot use {}: this machine has no GPU that the program can use, or no driver for CUDA 13; "
                "nvidia-smi should list one, and device \"cpu\" needs none",
                to_string(device));
  if (device.index >= count)
    throw error(ErrorKind::device, "there is no GPU {}: this machine has {}, the last is \"cuda:{}\"",
                to_string(device), count, count - 1);
}
std::unique_ptr<kernels::CudaStream> gpu_stream(const config::Device& device) {
  return kernels::make_cuda_stream(device.index);
}
std::string gpu_numerics(const config::Device& device) {
  return kernels::make_cuda_backend(device.index)->description();
}

std::string list_gpus() {
  std::string list;
  for (int i = 0; i < kernels::cuda_device_count(); ++i)
    list += fmt::format("{}cuda:{} {}", i == 0 ? "" : "; ", i, kernels::make_cuda_backend(i)->description());
  return list.empty() ? "none that this program can use: no GPU, or no driver for CUDA 13" : list;
}

#else

[[noreturn]] void require_gpu(const config::Device& device) {
  throw error(ErrorKind::device,
              "cannot use {}: this program was built without CUDA; build it with cmake --preset cuda, or "
              "choose device \"cpu\"",
              to_string(device));
}
std::unique_ptr<kernels::CudaStream> gpu_stream(const config::Device& device) {
  require_gpu(device);
}
std::string gpu_numerics(const config::Device& device) {
  require_gpu(device);
}
std::string list_gpus() {
  return "not looked for: this program was built without CUDA";
}

#endif

#if defined(TROUPE_NCCL)

std::unique_ptr<comm::DeviceGroup> gpu_group(const config::Device& device) {
  return comm::make_nccl_group(device.index);
}

#else

// Of a program without NCCL: it says so to those that have it.
class NoGroup final : public comm::DeviceGroup {
 public:
  std::string place() const override { return ""; }
  std::string new_id() const override { return ""; }
  void join(const std::string&, size_t, size_t, std::shared_ptr<const std::atomic<bool> >,
            comm::Deadline) override {}
  void add(kernels::DeviceRuntime&, int64_t*, int64_t, comm::Deadline) override {}
  void wait(kernels::DeviceRuntime&, comm::Deadline) override {}
  void leave() override {}
};
std::unique_ptr<comm::DeviceGroup> gpu_group(const config::Device&) {
  return std::make_unique<NoGroup>();
}

#endif

std::unique_ptr<kernels::CudaStream> open_stream(const config::Device& device) {
  if (device.kind == DeviceKind::cuda) return gpu_stream(device);
  return kernels::make_emulated_stream(kernels::ThreadOrder::forward);
}

// Its part of a node's fingerprint: the same words, the same bits.
std::string numerics_of(const config::Device& device) {
  return device.kind == DeviceKind::cuda ? gpu_numerics(device) : "an emulated GPU";
}

}  // namespace

void require_device(const config::Device& device) {
  if (device.kind == DeviceKind::cuda) require_gpu(device);
}

std::string describe_gpus() {
  return list_gpus();
}

std::unique_ptr<TrainEngine> make_device_engine(const config::Device& device, config::JobConfig job,
                                                scheduler::SlotPlan plan, std::unique_ptr<model::Model> model,
                                                const model::TrainState& state) {
  TROUPE_CHECK(device.kind != DeviceKind::cpu);
  if (job.sum != config::SumKind::exact)
    throw error(ErrorKind::usage,
                "training.sum is \"float\", which {} does not add up; set it to \"exact\", or choose device "
                "\"cpu\" for all nodes",
                to_string(device));
  require_device(device);
  EngineDevice opened{open_stream(device), open_stream(device), nullptr, numerics_of(device)};
  if (device.kind == DeviceKind::cuda) opened.group = gpu_group(device);
  return std::make_unique<DeviceEngine>(std::move(opened), std::move(job), plan, std::move(model), state);
}

}  // namespace troupe::actors
