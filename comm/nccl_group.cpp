#include "comm/nccl_group.hpp"

#include <cstring>
#include <thread>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "kernels/base/hash.hpp"
#include "kernels/cuda/check.hpp"
#include "kernels/cuda/runtime.hpp"

namespace troupe::comm {

namespace {

using kernels::check_cuda;

constexpr std::chrono::microseconds kPoll{50};

bool taken(ncclResult_t status) {
  return status == ncclSuccess || status == ncclInProgress;
}

// NCCL's own last words say more than the status.
std::string reason(ncclResult_t status) {
  const std::string_view last = ncclGetLastError(nullptr);
  return fmt::format("{}{}{}", ncclGetErrorString(status), last.empty() ? "" : "; ", last);
}

class NcclGroup final : public DeviceGroup {
 public:
  explicit NcclGroup(std::vector<int> devices) : devices_(std::move(devices)) {
    for (const int device : devices_) {
      cudaDeviceProp properties{};
      check_cuda(cudaGetDeviceProperties(&properties, device), "cannot read the properties of GPU {}",
                 device);
      place_ += (place_.empty() ? "" : ",") + to_hex(properties.uuid.bytes, sizeof properties.uuid.bytes);
    }
    int version = 0;
    require(ncclGetVersion(&version), "cannot ask for NCCL's version");
    place_ += fmt::format(" NCCL {}", version);
  }
  ~NcclGroup() override { leave(); }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  std::string place() const override { return place_; }

  std::string new_id() const override {
    ncclUniqueId id;
    require(ncclGetUniqueId(&id), "cannot make the id of a group");
    return {id.internal, sizeof id.internal};
  }

  void join(const GroupPlace& place, std::shared_ptr<const std::atomic<bool>> cancelled,
            Deadline deadline) override {
    leave();
    cancelled_ = std::move(cancelled);
    ncclUniqueId unique;
    if (place.id.size() != sizeof unique.internal)
      throw error(ErrorKind::protocol, "the id of a group of GPUs has {} bytes, not {}", place.id.size(),
                  sizeof unique.internal);
    std::memcpy(unique.internal, place.id.data(), place.id.size());
    communicators_.assign(devices_.size(), nullptr);
    on_all("joining a group of GPUs", deadline, [&](size_t i) {
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      return ncclCommInitRankConfig(&communicators_[i], int(place.size), unique, int(place.first + i),
                                    &config);
    });
  }

  void add(std::span<const Addend> devices, int64_t count, Deadline deadline) override {
    TROUPE_CHECK(devices.size() == communicators_.size(), "{} devices in a group of {} here", devices.size(),
                 communicators_.size());
    on_all("adding integers over GPUs", deadline, [&](size_t i) {
      return ncclAllReduce(devices[i].values, devices[i].values, size_t(count), ncclInt64, ncclSum,
                           communicators_[i], stream_of(devices[i]));
    });
  }

  void wait(std::span<const Addend> devices, Deadline deadline) override {
    for (size_t i = 0; i < devices.size(); ++i)
      for (;;) {
        use(i);
        const cudaError_t state = cudaStreamQuery(stream_of(devices[i]));
        if (state == cudaSuccess) break;
        if (state != cudaErrorNotReady)
          check_cuda(state, "the work of a stream on GPU {} failed", devices_[i]);
        watch("waiting for the sums of GPUs", deadline);
        std::this_thread::sleep_for(kPoll);
      }
  }

  void leave() override {
    for (const ncclComm_t communicator : std::exchange(communicators_, {})) {
      if (communicator == nullptr) continue;
      const ncclResult_t status = ncclCommAbort(communicator);
      if (!taken(status)) std::fprintf(stderr, "leaving a group of GPUs: %s\n", reason(status).c_str());
    }
  }

 private:
  static cudaStream_t stream_of(const Addend& device) {
    return static_cast<cudaStream_t>(device.runtime->native());
  }
  static void require(ncclResult_t status, const char* tried) {
    if (status != ncclSuccess) throw error(ErrorKind::device, "{}: {}", tried, reason(status));
  }
  void use(size_t i) const { check_cuda(cudaSetDevice(devices_[i]), "cannot use GPU {}", devices_[i]); }

  // One call for each GPU, as one of NCCL's group calls, since each would wait for the others; none blocks.
  // Until all have been taken.
  template <typename Call>
  void on_all(const char* tried, Deadline deadline, const Call& call) {
    require(ncclGroupStart(), tried);
    ncclResult_t said = ncclSuccess;
    for (size_t i = 0; i < devices_.size() && taken(said); ++i)
      said = cudaSetDevice(devices_[i]) == cudaSuccess ? call(i) : ncclUnhandledCudaError;
    const ncclResult_t ended = ncclGroupEnd();  // also after a failure: the thread's calls are in it
    if (!taken(said)) fail(said, tried);
    if (!taken(ended)) fail(ended, tried);
    while (watch(tried, deadline) == ncclInProgress) std::this_thread::sleep_for(kPoll);
  }

  // What the communicators say of themselves. Leaves them, and throws, when one has failed or is to end.
  ncclResult_t watch(const char* tried, Deadline deadline) {
    ncclResult_t all = ncclSuccess;
    for (const ncclComm_t communicator : communicators_) {
      ncclResult_t state = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(communicator, &state);
      if (asked != ncclSuccess) fail(asked, tried);
      if (!taken(state)) fail(state, tried);
      if (state == ncclInProgress) all = state;
    }
    if (*cancelled_) {
      leave();
      throw error(ErrorKind::cancelled, "{}: a new view is being formed", tried);
    }
    if (Clock::now() > deadline) {
      leave();
      throw error(ErrorKind::timeout, "{} took too long", tried);
    }
    return all;
  }
  [[noreturn]] void fail(ncclResult_t status, const char* tried) {
    const std::string why = reason(status);  // before what leaving may add
    leave();
    throw error(ErrorKind::device, "{}: {}", tried, why);
  }

  const std::vector<int> devices_;
  std::string place_;
  std::vector<ncclComm_t> communicators_;  // of the devices; none: no group has been joined
  std::shared_ptr<const std::atomic<bool>> cancelled_;
};

}  // namespace

std::unique_ptr<DeviceGroup> make_nccl_group(std::vector<int> devices) {
  return std::make_unique<NcclGroup>(std::move(devices));
}

}  // namespace troupe::comm
