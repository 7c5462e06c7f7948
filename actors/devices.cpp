#include "actors/devices.hpp"

#include "kernels/cuda/emulated.hpp"
#if defined(TROUPE_CUDA)
#include "kernels/cuda/backend.hpp"
#endif

namespace troupe::actors {

namespace {

using config::DeviceKind;

std::unique_ptr<kernels::CudaStream> emulated_stream() {
  return kernels::make_emulated_stream(kernels::ThreadOrder::forward);
}

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

}  // namespace

void require_device(const config::Device& device) {
  if (device.kind == DeviceKind::cuda) require_gpu(device);
}

std::string describe_gpus() {
  return list_gpus();
}

DeviceStreams open_streams(const config::Device& device) {
  TROUPE_CHECK(device.kind != DeviceKind::cpu);
  require_device(device);
  const auto open = [&] {
    return device.kind == DeviceKind::emulated ? emulated_stream() : gpu_stream(device);
  };
  DeviceStreams streams;
  streams.work = open();
  streams.copies = open();
  return streams;
}

std::string numerics_of(const config::Device& device) {
  return device.kind == DeviceKind::emulated ? "an emulated GPU" : gpu_numerics(device);
}

}  // namespace troupe::actors
