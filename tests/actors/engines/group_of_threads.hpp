// Devices that add among themselves with threads in the place of NCCL: each member of the group is one.
#pragma once

#include <barrier>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/device_group.hpp"
#include "kernels/cuda/runtime.hpp"

namespace troupe::testing {

// Members of a group, each a thread with its devices.
struct Meeting {
  explicit Meeting(int members) : all(members) {}
  std::barrier<> all;
  std::mutex mutex;
  std::vector<int64_t> sums;
};
class GroupOfThreads final : public comm::DeviceGroup {
 public:
  explicit GroupOfThreads(std::shared_ptr<Meeting> meeting, std::string place = "here")
      : meeting_(std::move(meeting)), place_(std::move(place)) {}
  std::string place() const override { return place_; }
  std::string new_id() const override {
    if (!has_ids) throw error(ErrorKind::device, "no interface to be reached by");
    return "id";
  }
  void join(const comm::GroupPlace&, std::shared_ptr<const std::atomic<bool>>, comm::Deadline) override {
    ++joined;
  }
  void add(std::span<const comm::Addend> devices, int64_t count, comm::Deadline) override {
    std::vector<int64_t> own(static_cast<size_t>(count));
    for (const comm::Addend& device : devices) {
      device.runtime->copy_out(own.data(), device.values, own.size() * sizeof(int64_t));
      const std::lock_guard lock(meeting_->mutex);
      meeting_->sums.resize(own.size());
      for (size_t i = 0; i < own.size(); ++i)  // modulo 2^64, as devices do
        meeting_->sums[i] = int64_t(uint64_t(meeting_->sums[i]) + uint64_t(own[i]));
    }
    meeting_->all.arrive_and_wait();
    for (const comm::Addend& device : devices)
      device.runtime->copy_in(device.values, meeting_->sums.data(), own.size() * sizeof(int64_t));
    meeting_->all.arrive_and_wait();
    {
      const std::lock_guard lock(meeting_->mutex);
      meeting_->sums.clear();
    }
    meeting_->all.arrive_and_wait();
  }
  void wait(std::span<const comm::Addend> devices, comm::Deadline) override {
    for (const comm::Addend& device : devices) device.runtime->synchronize();
  }
  void leave() override { ++left; }
  bool has_ids = true;
  int joined = 0, left = 0;

 private:
  std::shared_ptr<Meeting> meeting_;
  const std::string place_;
};

}  // namespace troupe::testing
