#include "actors/engines/devices.hpp"

#include <algorithm>

#include "actors/engines/device_engine.hpp"
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

// The GPUs that are meant, all of which this machine has.
config::Devices find_gpus(config::Devices wanted) {
  const int count = kernels::cuda_device_count();
  if (count == 0)
    throw error(ErrorKind::device,
                "cannot use {}: this machine has no GPU that the program can use, or no driver for CUDA 13; "
                "nvidia-smi should list one, and device \"cpu\" needs none",
                to_string(wanted));
  if (wanted.indices.empty())
    for (int i = 0; i < std::min(count, config::kDevicesMax); ++i) wanted.indices.push_back(i);
  for (const int index : wanted.indices)
    if (index >= count)
      throw error(ErrorKind::device, "there is no GPU cuda:{}: this machine has {}, the last is \"cuda:{}\"",
                  index, count, count - 1);
  return wanted;
}
std::unique_ptr<kernels::CudaStream> gpu_stream(int index) {
  return kernels::make_cuda_stream(index);
}
std::string gpu_numerics(int index) {
  return kernels::cuda_numerics(index);
}
std::string gpu_topology(const std::vector<int>& indices) {
  return kernels::cuda_topology(indices);
}

std::string list_gpus() {
  std::string list;
  std::vector<int> all;
  for (int i = 0; i < kernels::cuda_device_count(); ++i) {
    list += fmt::format("{}cuda:{} {}", i == 0 ? "" : "; ", i, kernels::cuda_description(i));
    all.push_back(i);
  }
  if (all.size() > 1) list += "; " + gpu_topology(all);
  return list.empty() ? "none that this program can use: no GPU, or no driver for CUDA 13" : list;
}

#else

config::Devices find_gpus(const config::Devices& wanted) {
  throw error(ErrorKind::device,
              "cannot use {}: this program was built without CUDA; build it with cmake --preset cuda, or "
              "choose device \"cpu\"",
              to_string(wanted));
}
// What follows is not called: find_gpus() finds none.
std::unique_ptr<kernels::CudaStream> gpu_stream(int) {
  return nullptr;
}
std::string gpu_numerics(int) {
  return "";
}
std::string gpu_topology(const std::vector<int>&) {
  return "";
}
std::string list_gpus() {
  return "not looked for: this program was built without CUDA";
}

#endif

#if defined(TROUPE_NCCL)

std::unique_ptr<comm::DeviceGroup> gpu_group(const std::vector<int>& indices) {
  return comm::make_nccl_group(indices);
}
std::unique_ptr<comm::DeviceGroup> group_inside(const std::vector<int>& indices) {
  return indices.size() > 1 ? gpu_group(indices) : nullptr;
}

#else

// Of a program without NCCL: it says so to those that have it.
class NoGroup final : public comm::DeviceGroup {
 public:
  std::string place() const override { return ""; }
  std::string new_id() const override { return ""; }
  void join(const comm::GroupPlace&, std::shared_ptr<const std::atomic<bool> >, comm::Deadline) override {}
  void add(std::span<const comm::Addend>, int64_t, comm::Deadline) override {}
  void wait(std::span<const comm::Addend>, comm::Deadline) override {}
  void leave() override {}
};
std::unique_ptr<comm::DeviceGroup> gpu_group(const std::vector<int>&) {
  return std::make_unique<NoGroup>();
}
std::unique_ptr<comm::DeviceGroup> group_inside(const std::vector<int>&) {
  return nullptr;
}

#endif

std::unique_ptr<kernels::CudaStream> open_stream(DeviceKind kind, int index) {
  if (kind == DeviceKind::cuda) return gpu_stream(index);
  return kernels::make_emulated_stream(kernels::ThreadOrder::forward);
}

// Their part of a node's fingerprint: the same words, the same bits. So they are of one kind.
std::string numerics_of(const config::Devices& devices) {
  if (devices.kind != DeviceKind::cuda) return "an emulated GPU";
  const std::string first = gpu_numerics(devices.indices[0]);
  for (const int index : devices.indices)
    if (const std::string other = gpu_numerics(index); other != first)
      throw error(ErrorKind::device,
                  "cuda:{} is \"{}\", but cuda:{} is \"{}\": a node trains on GPUs of one kind, since others "
                  "make other bits; name those that are alike",
                  devices.indices[0], first, index, other);
  return first;
}

}  // namespace

config::Devices find_devices(config::Devices wanted) {
  return wanted.kind == DeviceKind::cuda ? find_gpus(std::move(wanted)) : wanted;
}

std::string describe_gpus() {
  return list_gpus();
}

std::string describe_topology(const config::Devices& devices) {
  return devices.kind == DeviceKind::cuda ? gpu_topology(devices.indices) : "all of them are the CPU";
}

std::unique_ptr<TrainEngine> make_device_engine(const config::Devices& devices, config::JobConfig job,
                                                scheduler::SlotPlan plan, std::unique_ptr<model::Model> model,
                                                const model::TrainState& state) {
  TROUPE_CHECK(devices.kind != DeviceKind::cpu && !devices.indices.empty());
  if (job.sum != config::SumKind::exact)
    throw error(ErrorKind::usage,
                "training.sum is \"float\", which {} does not add up; set it to \"exact\", or choose device "
                "\"cpu\" for all nodes",
                to_string(devices));
  EngineDevices opened;
  opened.numerics = numerics_of(devices);
  for (const int index : devices.indices)
    opened.all.push_back(
        {name_of(devices.kind, index), open_stream(devices.kind, index), open_stream(devices.kind, index)});
  if (devices.kind == DeviceKind::cuda) {
    opened.inside = group_inside(devices.indices);
    opened.group = gpu_group(devices.indices);
  }
  return std::make_unique<DeviceEngine>(std::move(opened), std::move(job), plan, std::move(model), state);
}

}  // namespace troupe::actors
