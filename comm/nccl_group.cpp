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

class NcclGroup final : public DeviceGroup {
 public:
  explicit NcclGroup(int device) : device_(device) {
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "cannot read the properties of GPU {}", device);
    int version = 0;
    require(ncclGetVersion(&version), "cannot ask for NCCL's version");
    place_ = fmt::format("{} NCCL {}", to_hex(properties.uuid.bytes, sizeof properties.uuid.bytes), version);
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

  void join(const std::string& id, size_t position, size_t size,
            std::shared_ptr<const std::atomic<bool>> cancelled, Deadline deadline) override {
    leave();
    cancelled_ = std::move(cancelled);
    ncclUniqueId unique;
    if (id.size() != sizeof unique.internal)
      throw error(ErrorKind::protocol, "the id of a group of GPUs has {} bytes, not {}", id.size(),
                  sizeof unique.internal);
    std::memcpy(unique.internal, id.data(), id.size());
    check_cuda(cudaSetDevice(device_), "cannot use GPU {}", device_);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    begin(ncclCommInitRankConfig(&communicator_, int(size), unique, int(position), &config),
          "joining a group of GPUs", deadline);
  }

  void add(kernels::DeviceRuntime& runtime, int64_t* values, int64_t count, Deadline deadline) override {
    TROUPE_CHECK(communicator_ != nullptr, "no group has been joined");
    check_cuda(cudaSetDevice(device_), "cannot use GPU {}", device_);
    begin(ncclAllReduce(values, values, size_t(count), ncclInt64, ncclSum, communicator_, stream_of(runtime)),
          "adding integers over GPUs", deadline);
  }

  void wait(kernels::DeviceRuntime& runtime, Deadline deadline) override {
    check_cuda(cudaSetDevice(device_), "cannot use GPU {}", device_);
    for (;;) {
      const cudaError_t state = cudaStreamQuery(stream_of(runtime));
      if (state == cudaSuccess) return;
      if (state != cudaErrorNotReady) check_cuda(state, "the work of a stream on GPU {} failed", device_);
      watch("waiting for the sums of GPUs", deadline);
      std::this_thread::sleep_for(kPoll);
    }
  }

  void leave() override {
    if (communicator_ == nullptr) return;
    const ncclResult_t status = ncclCommAbort(std::exchange(communicator_, nullptr));
    if (status != ncclSuccess && status != ncclInProgress)
      std::fprintf(stderr, "leaving a group of GPUs: %s\n", ncclGetErrorString(status));
  }

 private:
  static cudaStream_t stream_of(const kernels::DeviceRuntime& runtime) {
    return static_cast<cudaStream_t>(runtime.native());
  }
  static void require(ncclResult_t status, const char* tried) {
    if (status != ncclSuccess) throw error(ErrorKind::device, "{}: {}", tried, ncclGetErrorString(status));
  }

  // A call that does not block has been made: until it has been taken.
  void begin(ncclResult_t status, const char* tried, Deadline deadline) {
    if (status != ncclSuccess && status != ncclInProgress) fail(status, tried);
    while (watch(tried, deadline) == ncclInProgress) std::this_thread::sleep_for(kPoll);
  }

  // What the communicator says of itself. Leaves it, and throws, when it has failed or is to end.
  ncclResult_t watch(const char* tried, Deadline deadline) {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &state);
    if (asked != ncclSuccess) fail(asked, tried);
    if (state != ncclSuccess && state != ncclInProgress) fail(state, tried);
    if (*cancelled_) {
      leave();
      throw error(ErrorKind::cancelled, "{}: a new view is being formed", tried);
    }
    if (Clock::now() > deadline) {
      leave();
      throw error(ErrorKind::timeout, "{} took too long", tried);
    }
    return state;
  }
  [[noreturn]] void fail(ncclResult_t status, const char* tried) {
    const std::string said = communicator_ != nullptr ? ncclGetLastError(communicator_) : "";
    leave();
    throw error(ErrorKind::device, "{}: {}; {}", tried, ncclGetErrorString(status), said);
  }

  int device_;
  std::string place_;
  ncclComm_t communicator_ = nullptr;
  std::shared_ptr<const std::atomic<bool>> cancelled_;
};

}  // namespace

std::unique_ptr<DeviceGroup> make_nccl_group(int device) {
  return std::make_unique<NcclGroup>(device);
}

}  // namespace troupe::comm
